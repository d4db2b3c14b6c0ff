# A router on ZFS: a few services, agenix with keys in the store that its lists came from.
{ lib, ... }:
let
  functions = import ../../../nix/lib.nix { inherit lib; };
in
{
  darlings = lib.mkMerge [
    {
      enable = true;
      volumes."/".keep.generations = 5;
    }
    (functions.fromPersistence {
      "/persist" = {
        directories = [
          "/var/lib/nixos"
          "/var/lib/acme"
          "/var/lib/kea"
        ];
        files = [
          "/etc/machine-id"
          "/etc/ssh/ssh_host_ed25519_key"
          "/etc/ssh/ssh_host_ed25519_key.pub"
        ];
      };
    })
  ];

  age.secrets.wireguard = { };
  age.identityPaths = [ "/persist/etc/ssh/ssh_host_ed25519_key" ];
  boot.loader.systemd-boot.enable = true;
  users.mutableUsers = false;
  fileSystems = {
    "/" = {
      device = "zroot/local/root";
      fsType = "zfs";
    };
    "/nix" = {
      device = "zroot/local/nix";
      fsType = "zfs";
    };
    "/persist" = {
      device = "zroot/safe/persist";
      fsType = "zfs";
      neededForBoot = true;
    };
    "/boot" = {
      device = "/dev/disk/by-label/ESP";
      fsType = "vfat";
    };
  };
}
