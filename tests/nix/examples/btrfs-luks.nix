# A btrfs in a LUKS volume.
{
  darlings = {
    enable = true;
    volumes."/" = { };
    directories = [ "/var/lib/nixos" ];
    purge.enable = false;
    check.enable = false;
  };

  users.mutableUsers = false;
  boot.initrd.luks.devices."crypt-root".device = "/dev/disk/by-partlabel/root";
  fileSystems = {
    "/" = {
      device = "/dev/mapper/crypt-root";
      fsType = "btrfs";
      options = [ "subvol=root" ];
    };
    "/nix" = {
      device = "/dev/mapper/crypt-root";
      fsType = "btrfs";
      options = [ "subvol=nix" ];
    };
    "/boot" = {
      device = "/dev/disk/by-label/boot";
      fsType = "vfat";
    };
  };
}
