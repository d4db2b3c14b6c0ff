# A configuration with options of its own for what is kept, which any module may add to.
{ config, lib, ... }:
let
  functions = import ../../../nix/lib.nix { inherit lib; };
  inherit (lib) mkOption types;
  anything = mkOption {
    type = types.listOf (types.either types.str types.attrs);
    default = [ ];
  };
in
{
  options.host.persist = {
    directories = anything;
    files = anything;
    home = anything;
  };

  imports = [
    {
      host.persist.directories = [ "/var/lib/tailscale" ];
      host.persist.files = [
        {
          file = "/etc/ssh/ssh_host_ed25519_key";
          method = "symlink";
        }
      ];
    }
    {
      host.persist.home = [
        ".config/Signal"
        {
          directory = ".local/share/keyrings";
          mode = "0700";
        }
      ];
    }
  ];

  config = {
    host.persist.directories = [
      "/var/lib/nixos"
      "/var/log"
    ];
    darlings = lib.mkMerge [
      {
        enable = true;
        volumes."/" = { };
      }
      (functions.fromPersistence {
        "/persist" = {
          inherit (config.host.persist) directories files;
          users.mia.directories = config.host.persist.home;
        };
      })
    ];
    boot.loader.systemd-boot.enable = true;
    users.mutableUsers = false;
    users.users.mia = { };
    fileSystems = {
      "/" = {
        device = "/dev/disk/by-partlabel/disk-main-root";
        fsType = "btrfs";
        options = [
          "subvol=/rootfs"
          "compress=zstd"
        ];
      };
      "/nix" = {
        device = "/dev/disk/by-partlabel/disk-main-root";
        fsType = "btrfs";
        options = [ "subvol=/nix" ];
      };
      "/boot" = {
        device = "/dev/disk/by-partlabel/disk-main-ESP";
        fsType = "vfat";
      };
    };
  };
}
