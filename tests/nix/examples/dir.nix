# A root on ext4, which is reset once it is mounted, and before anything is mounted in it. NixOS mounts
# /nix in stage 1 also where nobody says that it is needed for boot.
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
  boot.initrd.systemd.mounts = [
    { where = "/sysroot/srv/seed"; }
    { where = "/run/elsewhere"; }
  ];
  fileSystems = {
    "/" = {
      device = "/dev/disk/by-label/nixos";
      fsType = "ext4";
    };
    "/nix" = {
      device = "/dev/disk/by-label/nix";
      fsType = "ext4";
    };
    "/boot" = {
      device = "/dev/disk/by-label/boot";
      fsType = "vfat";
    };
  };
}
