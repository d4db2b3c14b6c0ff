# A virtual machine without a boot loader, whose store the host mounts, with a disk for the root.
{ lib, ... }:
let
  functions = import ../../../nix/lib.nix { inherit lib; };
in
{
  darlings = lib.mkMerge [
    {
      enable = true;
      purge.enable = false;
      volumes."/" = { };
    }
    (functions.fromPreservation {
      "/persistent" = {
        directories = [
          "/var/lib/nixos"
          "/var/lib/forgejo"
        ];
        files = [
          {
            file = "/etc/machine-id";
            inInitrd = true;
          }
        ];
      };
    })
  ];

  boot.initrd.systemd.mounts = [ { where = "/sysroot/nix/store"; } ];
  users.mutableUsers = false;
  fileSystems = {
    "/" = {
      device = "/dev/disk/by-label/root";
      fsType = "btrfs";
      options = [ "subvol=@" ];
    };
    "/nix/.ro-store" = {
      device = "ro-store";
      fsType = "virtiofs";
      neededForBoot = true;
    };
    "/nix/var/nix" = {
      device = "/dev/disk/by-label/nix-state";
      fsType = "ext4";
      neededForBoot = true;
    };
  };
}
