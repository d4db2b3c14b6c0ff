# Two pools, a blank snapshot, keys that a unit of one's own loads, and a machine that would rather stop.
{
  darlings = {
    enable = true;
    onFailure = "emergency";
    volumes."/" = {
      strategy = "rollback";
      zfs.newerSnapshots = "destroy";
    };
    volumes."/home" = {
      zfs = {
        dataset = "tank/safe/home";
        blank = "clean";
      };
    };
    initrd.requires = [ "load-keys.service" ];
    purge.onBoot = "1h";
    purge.interval = "1w";
    directories = [
      "/var/lib/nixos"
      "/home/mia"
    ];
    files = [ "/etc/shadow" ];
  };

  fileSystems = {
    "/" = {
      device = "rpool/local/root";
      fsType = "zfs";
    };
    "/nix" = {
      device = "rpool/local/nix";
      fsType = "zfs";
    };
    "/home" = {
      device = "tank/home";
      fsType = "zfs";
    };
    "/boot" = {
      device = "/dev/disk/by-label/boot";
      fsType = "vfat";
    };
  };
}
