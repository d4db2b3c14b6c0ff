# A root and a home on one btrfs, by its label.
{
  darlings = {
    enable = true;
    volumes."/" = {
      btrfs.blank = "@blank";
      keep.minFree = "5%";
    };
    volumes."/home".btrfs.generations = "@old/home";
    directories = [
      "/var/lib/nixos"
      "/var/log"
    ];
    files = [
      "/etc/machine-id"
      {
        file = "/etc/adjtime";
        create = true;
      }
    ];
    users.mia.directories = [ "projects" ];
    users.whole-home = {
      username = "tom";
      directories = [ "/" ];
    };
  };

  users.mutableUsers = false;
  users.users.mia.group = "mia";
  users.users.tom.homeMode = "750";
  fileSystems =
    let
      on = subvolume: {
        device = "LABEL=nixos";
        fsType = "btrfs";
        options = [
          "compress=zstd"
          "subvol=${subvolume}"
        ];
      };
    in
    {
      "/" = on "/@";
      "/home" = on "@home";
      "/nix" = on "@nix";
      "/boot" = {
        device = "/dev/disk/by-label/boot";
        fsType = "vfat";
      };
    };
}
