# A laptop: btrfs in LUKS, Secure Boot, a desktop's state, passwords and sops-nix from the store.
{ lib, ... }:
let
  functions = import ../../../nix/lib.nix { inherit lib; };
  on = subvolume: {
    device = "/dev/mapper/cryptroot";
    fsType = "btrfs";
    options = [
      "subvol=${subvolume}"
      "compress=zstd"
      "noatime"
    ];
  };
in
{
  darlings = lib.mkMerge [
    {
      enable = true;
      volumes."/".keep.days = 30;
    }
    (functions.fromPersistence {
      "/persist" = {
        hideMounts = true;
        allowTrash = true;
        directories = [
          "/etc/NetworkManager/system-connections"
          "/var/lib/bluetooth"
          "/var/lib/fprint"
          "/var/lib/nixos"
          "/var/lib/sbctl"
          "/var/lib/systemd/coredump"
          "/var/log"
          {
            directory = "/var/lib/colord";
            user = "colord";
            group = "colord";
            mode = "u=rwx,g=rx,o=";
          }
        ];
        files = [ "/etc/machine-id" ];
        users.mia = {
          directories = [
            "Documents"
            ".local/share/Steam"
            ".mozilla"
            {
              directory = ".gnupg";
              mode = "0700";
            }
            {
              directory = ".ssh";
              mode = "0700";
            }
          ];
          files = [ ".zsh_history" ];
        };
      };
    })
  ];

  boot.initrd.luks.devices.cryptroot.device = "/dev/disk/by-partlabel/root";
  boot.lanzaboote.enable = true;
  sops.secrets.mail = { };
  sops.age.keyFile = "/persist/var/lib/sops-nix/key.txt";
  users.mutableUsers = false;
  users.users.mia.hashedPasswordFile = "/persist/passwords/mia";
  fileSystems = {
    "/" = on "root";
    "/nix" = on "nix";
    "/persist" = on "persist" // {
      neededForBoot = true;
    };
    "/boot" = {
      device = "/dev/disk/by-uuid/1A2B-3C4D";
      fsType = "vfat";
    };
  };
}
