# A root on ZFS.
{
  name = "zfs";

  common = {
    boot.supportedFilesystems = [ "zfs" ];
    # The test framework fills no /dev/disk/by-id.
    boot.zfs.devNodes = "/dev/disk/by-uuid";
    boot.zfs.forceImportRoot = false;
    networking.hostId = "64617267";
  };

  fileSystems = {
    "/" = {
      device = "rpool/local/root";
      fsType = "zfs";
    };
    "/persist" = {
      device = "rpool/safe/persist";
      fsType = "zfs";
      neededForBoot = true;
    };
  };

  install = ''
    set -e
    zpool create -O canmount=off -O mountpoint=none -O acltype=posixacl -O xattr=sa rpool /dev/vdb
    zfs create -p -o mountpoint=legacy rpool/local/root
    zfs create -p -o mountpoint=legacy rpool/safe/persist
    mkdir -p /mnt
    mount -t zfs rpool/local/root /mnt
    mkdir /mnt/persist
    mount -t zfs rpool/safe/persist /mnt/persist
  '';

  generations = "zfs list -H -o name -t snapshot rpool/local/root | grep -o 'darlings-.*'";
}
