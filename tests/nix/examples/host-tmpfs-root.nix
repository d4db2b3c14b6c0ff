# A tmpfs as the root, with impermanence's mounts, and a home that is reset in place.
{
  darlings = {
    enable = true;
    volumes."/home".keep.days = 14;
    users.mia = {
      directories = [
        "projects"
        {
          directory = ".ssh";
          mode = "0700";
        }
      ];
      files = [ ".bash_history" ];
    };
  };

  environment.persistence."/nix/persist" = {
    directories = [
      { directory = "/var/log"; }
      { directory = "/var/lib/nixos"; }
    ];
    files = [ { file = "/etc/machine-id"; } ];
  };
  boot.initrd.systemd.mounts = [ { where = "/sysroot/var/lib/nixos"; } ];
  boot.loader.systemd-boot.enable = true;
  users.mutableUsers = false;
  users.users.mia = { };
  fileSystems = {
    "/" = {
      device = "none";
      fsType = "tmpfs";
      options = [
        "size=25%"
        "mode=755"
      ];
    };
    "/nix" = {
      device = "/dev/vg/nix";
      fsType = "ext4";
    };
    "/home" = {
      device = "/dev/vg/home";
      fsType = "btrfs";
      options = [ "subvol=home" ];
    };
    "/boot" = {
      device = "/dev/disk/by-uuid/ABCD-0123";
      fsType = "vfat";
    };
  };
}
