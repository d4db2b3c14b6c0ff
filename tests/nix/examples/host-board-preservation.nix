# A small board: extlinux, ext4, and preservation's lists written with helper functions.
{ lib, ... }:
let
  functions = import ../../../nix/lib.nix { inherit lib; };
  early = directory: {
    inherit directory;
    inInitrd = true;
    configureParent = true;
  };
  linked = file: {
    inherit file;
    how = "symlink";
    inInitrd = true;
    configureParent = true;
  };
in
{
  darlings = lib.mkMerge [
    {
      enable = true;
      volumes."/" = { };
    }
    (functions.fromPreservation {
      "/nix/persist" = {
        commonMountOptions = [
          "x-gvfs-hide"
          "x-gdu.hide"
        ];
        directories = [
          (early "/var/lib/nixos")
          "/var/log"
          "/var/lib/systemd/timers"
          "/var/lib/tailscale"
          {
            directory = "/var/lib/octoprint";
            user = "octoprint";
            group = "octoprint";
          }
        ];
        files = [
          (linked "/var/lib/systemd/random-seed")
          (linked "/etc/machine-id")
          {
            file = "/etc/wpa_supplicant.conf";
            mode = "0640";
          }
        ];
      };
    })
  ];

  boot.loader.generic-extlinux-compatible.enable = true;
  users.mutableUsers = false;
  fileSystems = {
    "/" = {
      device = "/dev/disk/by-label/root";
      fsType = "ext4";
    };
    "/nix" = {
      device = "/dev/disk/by-label/nix";
      fsType = "ext4";
    };
    "/boot" = {
      device = "/dev/disk/by-label/boot";
      fsType = "ext4";
    };
  };
}
