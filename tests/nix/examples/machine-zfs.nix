# The virtual machine with a zfs root of vm-tests, which boots with what comes of this.
{
  darlings = {
    enable = true;
    volumes."/" = {
      zfs.blank = "blank";
      keep.generations = 3;
    };
    volumes."/home".zfs.blank = "blank";
    directories = [
      "/etc/ssh"
      "/var/log"
      "/var/lib/everything"
      "/var/lib/nixos"
      "/srv/never-made"
    ];
    files = [ "/etc/machine-id" ];
    users.mia.directories = [
      {
        directory = "projects";
        exclude = [ "target" ];
      }
    ];
  };

  users.mutableUsers = false;
  users.users.mia.group = "mia";
  fileSystems = {
    "/" = { device = "rpool/local/root"; fsType = "zfs"; };
    "/usr" = { device = "rpool/local/usr"; fsType = "zfs"; neededForBoot = true; };
    # NixOS wants them; the machine is a Debian, and has neither.
    "/nix".device = "none";
    "/boot".device = "none";
    "/home" = { device = "rpool/safe/home"; fsType = "zfs"; };
  };
}
