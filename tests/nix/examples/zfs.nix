# A root on ZFS, as most people would write it.
{
  darlings = {
    enable = true;
    volumes."/".keep = {
      generations = 10;
      days = 30;
    };
    directories = [
      "/var/log"
      "/var/lib/nixos"
      "/var/lib/systemd/coredump"
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
        file = "/etc/nix/id_rsa";
        parentDirectory.mode = "0700";
      }
      "/etc/ssh/ssh_host_ed25519_key"
    ];
    users.mia = {
      directories = [
        "Documents"
        ".local/share/direnv"
        {
          directory = ".ssh";
          mode = "0700";
        }
        {
          directory = "VirtualBox VMs";
          exclude = [ ".cache" ];
        }
      ];
      files = [ ".bash_history" ];
    };
  };

  users.mutableUsers = false;
  users.users.mia = { };
  fileSystems = {
    "/" = {
      device = "rpool/local/root";
      fsType = "zfs";
    };
    "/nix" = {
      device = "rpool/local/nix";
      fsType = "zfs";
    };
    "/boot" = {
      device = "/dev/disk/by-label/boot";
      fsType = "vfat";
    };
  };
}
