# A root on ext4, which is reset once it is mounted, and before anything is mounted in it.
{
  darlings = {
    enable = true;
    volumes."/" = { };
    directories = [
      "/var/lib/nixos"
      "/var/log"
    ];
  };

  users.mutableUsers = false;
  fileSystems = {
    "/" = {
      device = "/dev/disk/by-label/nixos";
      fsType = "ext4";
    };
    "/nix" = {
      device = "/dev/disk/by-label/nix";
      fsType = "ext4";
      neededForBoot = true;
    };
    "/boot" = {
      device = "/dev/disk/by-label/boot";
      fsType = "vfat";
    };
  };
}
