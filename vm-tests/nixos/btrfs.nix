# A root on btrfs.
{
  name = "btrfs";

  common =
    { pkgs, ... }:
    {
      boot.supportedFilesystems = [ "btrfs" ];
      environment.systemPackages = [ pkgs.btrfs-progs ];
    };

  fileSystems =
    let
      on = subvolume: {
        device = "/dev/vdb";
        fsType = "btrfs";
        options = [ "subvol=${subvolume}" ];
        neededForBoot = true;
      };
    in
    {
      "/" = on "@";
      "/persist" = on "@persist";
    };

  install = ''
    set -e
    mkfs.btrfs -L root /dev/vdb
    mkdir -p /mnt /run/top
    mount /dev/vdb /run/top
    btrfs subvolume create /run/top/@
    btrfs subvolume create /run/top/@persist
    umount /run/top
    mount -o subvol=@ /dev/vdb /mnt
    mkdir /mnt/persist
    mount -o subvol=@persist /dev/vdb /mnt/persist
  '';

  generations = ''
    mkdir -p /run/top
    mountpoint -q /run/top || mount -o subvolid=5 /dev/vdb /run/top
    ls /run/top/@darlings/root
  '';
}
