# Two stores of preservation, one of them backed up, with the same people in both.
{ lib, ... }:
let
  functions = import ../../../nix/lib.nix { inherit lib; };
in
{
  darlings = lib.mkMerge [
    {
      enable = true;
      createFiles = true;
      volumes."/".keep.generations = 3;
    }
    (functions.fromPreservation {
      "/persist/cache" = {
        commonMountOptions = [ "x-gvfs-hide" ];
        users = {
          root = {
            home = "/root";
            directories = [ ".cache/nix" ];
          };
          mia.directories = [ ".cache/nix" ];
        };
      };
      "/persist/state" = {
        commonMountOptions = [ "x-gvfs-hide" ];
        directories = [
          "/etc/nixos"
          "/var/lib/systemd"
          "/var/log/journal"
          {
            directory = "/var/lib/nixos";
            inInitrd = true;
          }
        ];
        files = [
          {
            file = "/etc/machine-id";
            inInitrd = true;
            how = "symlink";
            configureParent = true;
          }
        ];
        users.mia = {
          commonMountOptions = [ { name = "x-gdu.hide"; } ];
          directories = [
            {
              directory = ".ssh";
              mode = "0700";
            }
            "src"
          ];
          files = [
            {
              file = ".config/git/credentials";
              how = "symlink";
              mode = "0600";
            }
          ];
        };
      };
    })
  ];

  boot.loader.systemd-boot.enable = true;
  users.mutableUsers = false;
  users.users.mia = { };
  users.users.root = {
    home = "/root";
    group = "root";
  };
  fileSystems = {
    "/" = {
      device = "rpool/root";
      fsType = "zfs";
    };
    "/nix" = {
      device = "rpool/nix";
      fsType = "zfs";
    };
    "/persist/cache" = {
      device = "rpool/cache";
      fsType = "zfs";
      neededForBoot = true;
    };
    "/persist/state" = {
      device = "rpool/state";
      fsType = "zfs";
      neededForBoot = true;
    };
    "/boot" = {
      device = "/dev/disk/by-label/boot";
      fsType = "vfat";
    };
  };
}
