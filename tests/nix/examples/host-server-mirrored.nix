# A rented server: two disks in a ZFS mirror, GRUB on both, unlocked over SSH, a database, two stores.
{ lib, ... }:
let
  functions = import ../../../nix/lib.nix { inherit lib; };
in
{
  darlings = lib.mkMerge [
    {
      enable = true;
      onFailure = "boot";
      initrd.requires = [ "load-keys.service" ];
      volumes."/" = {
        strategy = "rollback";
        zfs.newerSnapshots = "destroy";
      };
    }
    (functions.fromPersistence {
      "/persist/data" = {
        directories = [
          {
            directory = "/var/lib/postgresql";
            user = "postgres";
            group = "postgres";
            mode = "0750";
          }
          {
            directory = "/var/lib/acme";
            user = "acme";
            group = "acme";
          }
        ];
      };
      "/persist/system" = {
        directories = [
          "/var/lib/nixos"
          "/var/log"
        ];
        files = [
          "/etc/machine-id"
          "/etc/ssh/ssh_host_ed25519_key"
          "/etc/ssh/ssh_host_ed25519_key.pub"
          {
            file = "/etc/secrets/initrd/ssh_host_ed25519_key";
            parentDirectory.mode = "u=rwx,g=,o=";
          }
        ];
      };
    })
  ];

  boot.loader.grub = {
    enable = true;
    efiSupport = true;
    mirroredBoots = [
      {
        path = "/boot1";
        devices = [ "nodev" ];
      }
      {
        path = "/boot2";
        devices = [ "nodev" ];
      }
    ];
  };
  boot.initrd.network.ssh = {
    enable = true;
    hostKeys = [ "/etc/secrets/initrd/ssh_host_ed25519_key" ];
  };
  boot.initrd.secrets."/etc/ssh/ssh_host_ed25519_key" = "/etc/secrets/initrd/ssh_host_ed25519_key";
  users.mutableUsers = false;
  fileSystems = {
    "/" = {
      device = "tank/system/root";
      fsType = "zfs";
    };
    "/nix" = {
      device = "tank/local/nix";
      fsType = "zfs";
    };
    "/persist/data" = {
      device = "tank/user/data";
      fsType = "zfs";
      neededForBoot = true;
    };
    "/persist/system" = {
      device = "tank/system/persist";
      fsType = "zfs";
      neededForBoot = true;
    };
    "/boot1" = {
      device = "/dev/disk/by-id/nvme-one-part1";
      fsType = "vfat";
    };
    "/boot2" = {
      device = "/dev/disk/by-id/nvme-two-part1";
      fsType = "vfat";
    };
  };
}
