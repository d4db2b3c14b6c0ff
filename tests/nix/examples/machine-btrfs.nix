# The virtual machine with a btrfs root of vm-tests, which boots with what comes of this.
{
  darlings = {
    enable = true;
    volumes."/" = {
      btrfs.blank = "@blank/root";
      keep.generations = 3;
    };
    volumes."/home".btrfs.blank = "@blank/home";
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
    "/" = { device = "LABEL=root"; fsType = "btrfs"; options = [ "subvol=@" "noatime" ]; };
    "/usr" = { device = "LABEL=root"; fsType = "btrfs"; options = [ "subvol=@usr" "noatime" "ro" ]; neededForBoot = true; };
    # NixOS wants them; the machine is a Debian, and has neither.
    "/nix".device = "none";
    "/boot".device = "none";
    "/home" = { device = "LABEL=root"; fsType = "btrfs"; options = [ "subvol=@home" "noatime" ]; };
  };
}
