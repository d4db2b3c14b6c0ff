# The shipped units with what this machine adds to them, as text: what is tested is what is installed.
{
  cfg,
  lib,
  resolved,
}:
let
  inherit (resolved) ordering;

  own = lib.replaceStrings [ "/usr/bin/darlings" ] [ "${cfg.package}/bin/darlings" ];

  line =
    directive: units:
    lib.optional (units != [ ]) "${directive}=${lib.concatStringsSep " " (lib.unique units)}";

  # Before the [Service] section, and so at the end of [Unit].
  withUnitLines =
    lines:
    lib.replaceStrings [ "\n[Service]\n" ] [
      "\n# Of this machine, from its NixOS configuration.\n${lib.concatStringsSep "\n" lines}\n\n[Service]\n"
    ];

  isDir = resolved.ofKind "dir" != [ ];

  # A purge takes hours, and may be started and stopped without anybody missing anything: no reason
  # for a switch to wait for it. The switch looks for each of the two in another section.
  leaveAlone =
    text:
    lib.replaceStrings [ "\n[Service]\n" ] [ "\n[Service]\nX-RestartIfChanged=false\n" ] (
      withUnitLines [ "X-StopOnRemoval=false" ] text
    );
in
{
  reset = withUnitLines (
    line "Wants" ordering.wants
    ++ line "Requires" ordering.requires
    ++ line "After" (ordering.wants ++ ordering.requires ++ ordering.after)
    ++ line "Before" ordering.before
  ) (own (builtins.readFile (
    if isDir then ../systemd/darlings-reset-dir.service else ../systemd/darlings-reset.service
  )));

  purge = leaveAlone (own (builtins.readFile ../systemd/darlings-purge.service));

  timer = lib.replaceStrings
    [
      "OnBootSec=5min"
      "OnUnitInactiveSec=1d"
    ]
    [
      "OnBootSec=${cfg.purge.onBoot}"
      "OnUnitInactiveSec=${cfg.purge.interval}"
    ]
    (builtins.readFile ../systemd/darlings-purge.timer);
}
