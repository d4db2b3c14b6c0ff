# What the manual of preservation declares, brought over by the function for that.
{ lib, ... }:
let
  functions = import ../../../nix/lib.nix { inherit lib; };
in
{
  darlings = lib.mkMerge [
    {
      enable = true;
      createFiles = true;
      volumes."/".keep.generations = 5;
    }
    (functions.fromPreservation {
      "/persistent" = {
        commonMountOptions = [ "x-gvfs-hide" ];
        files = [
          {
            file = "/etc/machine-id";
            inInitrd = true;
          }
          {
            file = "/etc/ssh/ssh_host_rsa_key";
            how = "symlink";
            configureParent = true;
          }
          "/var/lib/usbguard/rules.conf"
          {
            file = "/var/lib/systemd/random-seed";
            how = "symlink";
            inInitrd = true;
            configureParent = true;
            parent.mode = "0700";
          }
        ];
        directories = [
          "/var/lib/systemd/coredump"
          "/var/log"
          {
            directory = "/var/lib/nixos";
            inInitrd = true;
          }
        ];
        users = {
          butz = {
            commonMountOptions = [ "x-gvfs-hide" ];
            directories = [
              {
                directory = ".ssh";
                mode = "0700";
              }
              ".config/syncthing"
              {
                directory = ".local";
                how = "_intermediate";
              }
              ".local/state/nvim"
            ];
            files = [ ".histfile" ];
          };
          root = {
            home = "/root";
            directories = [
              {
                directory = ".ssh";
                mode = "0700";
              }
            ];
          };
        };
      };
    })
  ];

  users.mutableUsers = false;
  users.users.butz = { };
  users.users.root = {
    home = "/root";
    group = "root";
  };
  fileSystems = {
    "/" = {
      device = "zroot/root";
      fsType = "zfs";
    };
    "/nix" = {
      device = "zroot/nix";
      fsType = "zfs";
    };
    "/boot" = {
      device = "/dev/disk/by-uuid/2C1D-93AE";
      fsType = "vfat";
    };
  };
}
