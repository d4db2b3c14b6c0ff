# A root and a home that are both reset, each in a dataset, with a home of another place for a service.
{ lib, ... }:
let
  functions = import ../../../nix/lib.nix { inherit lib; };
in
{
  darlings = lib.mkMerge [
    {
      enable = true;
      volumes."/".keep = {
        generations = 10;
        days = 30;
      };
      volumes."/home".keep.minFree = "10%";
    }
    (functions.fromPersistence {
      "/persist" = {
        hideMounts = true;
        directories = [
          "/var/lib/containers"
          "/var/lib/libvirt"
          "/var/lib/nixos"
          "/var/log"
        ];
        files = [
          "/etc/machine-id"
          "/etc/shadow"
        ];
        users.mia.directories = [
          "Pictures"
          ".config/Code"
        ];
      };
      "/persist/games" = {
        enable = false;
        users.mia.directories = [ ".local/share/Steam" ];
      };
    })
    {
      users.git = {
        directories = [ "repositories" ];
      };
    }
  ];

  boot.loader.systemd-boot.enable = true;
  boot.loader.systemd-boot.xbootldrMountPoint = "/boot";
  boot.loader.efi.efiSysMountPoint = "/efi";
  users.users.mia.homeMode = "711";
  users.users.git = {
    home = "/var/git";
    group = "git";
  };
  fileSystems = {
    "/" = {
      device = "rpool/eyd/root";
      fsType = "zfs";
    };
    "/home" = {
      device = "rpool/eyd/home";
      fsType = "zfs";
    };
    "/nix" = {
      device = "rpool/nix";
      fsType = "zfs";
    };
    "/boot" = {
      device = "/dev/disk/by-label/xboot";
      fsType = "vfat";
    };
    "/efi" = {
      device = "/dev/disk/by-label/efi";
      fsType = "vfat";
    };
  };
}
