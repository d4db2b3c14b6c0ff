# A machine that is installed to a second disk and boots from it, several times.
#
# The test framework boots a system of its own from the first disk. That one makes the file systems on
# /dev/vdb; two specialisations of it then have their root there, one as it is before moving in, with
# bind mounts from /persist, and one with darlings.
{
  pkgs,
  module,
  functions,
}:
{
  # The name of the file system.
  name,
  # NixOS options of every specialisation, and of the installing system.
  common,
  # fileSystems of the root, of /persist and of nothing else.
  fileSystems,
  # The shell commands that make and mount them at /mnt.
  install,
  # Shell commands that print the names of the generations, one a line.
  generations,
}:
let
  inherit (pkgs) lib;

  # As a user of impermanence has it.
  persistence."/persist" = {
    directories = [
      "/var/lib/nixos"
      "/var/log"
      {
        directory = "/var/lib/kept";
        mode = "0750";
      }
    ];
    files = [ "/etc/machine-id" ];
    users.mia.directories = [ "projects" ];
  };

  # The root on the second disk, beside what the test framework mounts.
  onDisk =
    { lib, ... }:
    {
      virtualisation.fileSystems = lib.mapAttrs (_: lib.mkForce) fileSystems;
    };

  # Before: the directories of the store, mounted in their places by hand.
  before = {
    imports = [ onDisk ];
    virtualisation.fileSystems = lib.genAttrs [ "/var/lib/kept" "/home/mia/projects" ] (path: {
      device = "/persist${path}";
      fsType = "none";
      options = [ "bind" ];
      depends = [ "/persist" ];
    });
  };

  after = {
    imports = [
      onDisk
      module
    ];
    darlings = lib.mkMerge [
      {
        enable = true;
        volumes."/".keep.generations = 3;
        # Only the store is mounted, and this is beside it.
        directories = [ "/nix/var/nix" ];
      }
      (functions.fromPersistence persistence)
    ];
  };
in
pkgs.testers.runNixOSTest {
  name = "darlings-${name}";

  nodes.machine =
    { ... }:
    {
      imports = [ common ];
      virtualisation = {
        emptyDiskImages = [ 4096 ];
        useBootLoader = true;
        useEFIBoot = true;
        # The store is the host's, so that the root can be empty.
        mountHostNixStore = true;
      };
      boot.loader.systemd-boot.enable = true;
      boot.loader.timeout = 0;
      boot.loader.efi.canTouchEfiVariables = true;
      boot.initrd.systemd.enable = true;
      users.mutableUsers = false;
      users.users.mia = {
        isNormalUser = true;
        uid = 1000;
      };
      environment.systemPackages = [
        pkgs.attr
        (pkgs.callPackage ../../nix/package.nix { })
      ];
      specialisation.before.configuration = before;
      specialisation.after.configuration = after;
    };

  testScript = { nodes, ... }: ''
    def boot(specialisation):
        machine.succeed(
            f"bootctl set-default nixos-generation-1-specialisation-{specialisation}.conf",
            "sync",
        )
        machine.crash()
        machine.wait_for_unit("multi-user.target")

    def again():
        machine.succeed("sync")
        machine.crash()
        machine.wait_for_unit("multi-user.target")

    def generations():
        return machine.succeed("""${generations}""").split()

    machine.wait_for_unit("multi-user.target")
    with subtest("the root is installed"):
        machine.succeed("""${install}""")
        machine.succeed(
            "install -d -m 0750 /mnt/persist/var/lib/kept",
            "install -d -o 1000 -g 100 /mnt/persist/home/mia/projects",
            "umount -R /mnt",
        )

    with subtest("it lives with a store, as before"):
        boot("before")
        machine.succeed(
            "echo precious > /var/lib/kept/file",
            "setfattr -n user.colour -v blue /var/lib/kept/file",
            "su mia -c 'echo code > /home/mia/projects/main.rs'",
            "echo clutter > /etc/clutter",
        )

    with subtest("check finds what only the store has, and adopt brings it over"):
        configuration = "${nodes.machine.specialisation.after.configuration.environment.etc."darlings.toml".source}"
        missing = machine.fail(f"darlings check --config {configuration}")
        assert "/var/lib/kept is a bind mount of " in missing, missing
        machine.succeed(
            f"darlings adopt --config {configuration} --from /persist --dry-run >&2",
            f"darlings adopt --config {configuration} --from /persist >&2",
            f"darlings check --config {configuration} >&2",
            # The store is mounted on it all the time.
            "umount /var/lib/kept",
            "grep -qx precious /var/lib/kept/file",
            "grep -qx precious /persist/var/lib/kept/file",
        )

    with subtest("the switch erases the rest, and keeps what was declared"):
        boot("after")
        machine.fail("test -e /etc/clutter")
        machine.succeed(
            "grep -qx precious /var/lib/kept/file",
            "getfattr --only-values -n user.colour /var/lib/kept/file | grep -qx blue",
            "test $(stat -c %a /var/lib/kept) = 750",
            "grep -qx code /home/mia/projects/main.rs",
            "test $(stat -c %U /home/mia/projects/main.rs) = mia",
            "systemctl status darlings-purge.timer",
        )
        machine.fail("findmnt /home/mia/projects")
        identity = machine.succeed("cat /etc/machine-id")
        assert len(generations()) == 1, generations()

    with subtest("so does every boot"):
        for number in range(2, 6):
            machine.succeed(
                f"echo {number} > /etc/clutter-{number}",
                f"echo {number} >> /var/lib/kept/numbers",
            )
            again()
            machine.fail(f"test -e /etc/clutter-{number}")
            assert machine.succeed("tail -n1 /var/lib/kept/numbers").strip() == str(number)
            assert machine.succeed("cat /etc/machine-id") == identity

    with subtest("purge keeps three generations"):
        machine.succeed("systemctl start darlings-purge.service")
        assert len(generations()) == 3, generations()

    with subtest("a crash without a sync loses nothing that was written before it"):
        machine.succeed("echo safe > /var/lib/kept/safe", "sync", "echo clutter > /etc/clutter")
        machine.crash()
        machine.wait_for_unit("multi-user.target")
        machine.succeed("grep -qx safe /var/lib/kept/safe", "darlings check >&2")
        machine.fail("test -e /etc/clutter")
  '';
}
