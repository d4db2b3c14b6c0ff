# What the manual of impermanence declares, brought over by the function for that.
{ lib, ... }:
let
  functions = import ../../../nix/lib.nix { inherit lib; };
in
{
  darlings = lib.mkMerge [
    {
      enable = true;
      volumes."/" = { };
    }
    (functions.fromPersistence {
      "/persistent" = {
        enable = true;
        hideMounts = true;
        directories = [
          "/var/log"
          "/var/lib/bluetooth"
          "/var/lib/nixos"
          "/var/lib/systemd/coredump"
          "/etc/NetworkManager/system-connections"
          {
            directory = "/var/lib/colord";
            user = "colord";
            group = "colord";
            mode = "u=rwx,g=rx,o=";
          }
        ];
        files = [
          "/etc/machine-id"
          {
            file = "/var/keys/secret_file";
            parentDirectory = {
              mode = "u=rwx,g=,o=";
            };
          }
        ];
        users.bird = {
          directories = [
            "Downloads"
            {
              directory = ".gnupg";
              mode = "0700";
            }
            {
              directory = ".local/share/keyrings";
              mode = "0700";
            }
            ".local/share/direnv"
          ];
          files = [ ".screenrc" ];
        };
      };
      "/persistent/big" = {
        directories = [ "/var/lib/images" ];
        users.bird.directories = [ "Videos" ];
      };
      "/unused" = {
        enable = false;
        directories = [ "/var/lib/unused" ];
      };
    })
  ];

  users.mutableUsers = false;
  users.users.bird = { };
  fileSystems = {
    "/" = {
      device = "/dev/disk/by-uuid/6f2c3f3e-0f0e-4d0e-8c7a-3f7d4a1f7a11";
      fsType = "btrfs";
      options = [ "subvol=root" ];
    };
    "/nix" = {
      device = "/dev/disk/by-uuid/6f2c3f3e-0f0e-4d0e-8c7a-3f7d4a1f7a11";
      fsType = "btrfs";
      options = [ "subvol=nix" ];
    };
    "/boot" = {
      device = "/dev/disk/by-uuid/2C1D-93AE";
      fsType = "vfat";
    };
  };
}
