# All of /var/lib, and a store in /nix, as on machines with one file system for both.
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
      "/nix/persist" = {
        hideMounts = true;
        directories = [
          "/etc/nixos"
          "/var/db"
          "/var/lib"
          "/var/log"
          {
            directory = "/root";
            mode = "0700";
          }
        ];
        files = [
          "/etc/machine-id"
          "/etc/ssh/ssh_host_ed25519_key"
          "/etc/ssh/ssh_host_ed25519_key.pub"
        ];
      };
    })
  ];

  boot.loader.grub.enable = true;
  boot.loader.grub.efiSupport = true;
  boot.loader.efi.efiSysMountPoint = "/boot/efi";
  users.mutableUsers = false;
  users.users.root.hashedPasswordFile = "/nix/persist/passwd_root";
  fileSystems = {
    "/" = {
      device = "/dev/disk/by-uuid/0f6f2a1e-0001-4b5e-8e0f-aaaaaaaaaaaa";
      fsType = "btrfs";
      options = [ "subvol=@rootfs" ];
    };
    "/nix" = {
      device = "/dev/disk/by-uuid/0f6f2a1e-0001-4b5e-8e0f-aaaaaaaaaaaa";
      fsType = "btrfs";
      options = [ "subvol=@nix" ];
    };
    "/boot" = {
      device = "/dev/disk/by-uuid/0f6f2a1e-0001-4b5e-8e0f-aaaaaaaaaaaa";
      fsType = "btrfs";
      options = [ "subvol=@boot" ];
    };
    "/boot/efi" = {
      device = "/dev/disk/by-label/EFI";
      fsType = "vfat";
    };
  };
}
