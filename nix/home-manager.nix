# The module for Home Manager: a user's own configuration says what is kept below that user's home. Where Home
# Manager runs as a module of NixOS, the NixOS module collects it. Standalone it cannot reach the system's
# configuration, so the activation asks darlings about each path and prints what is missing there.
{
  config,
  lib,
  ...
}:
let
  inherit (import ./entries.nix { inherit lib; }) paths;
  functions = import ./lib.nix { inherit lib; };

  cfg = config.darlings;
  home = functions.normalize config.home.homeDirectory;

  place = functions.inHome home;
  declared =
    map (entry: entry // { path = place entry.directory; }) cfg.directories
    ++ map (entry: entry // { path = place entry.file; }) cfg.files;

  table =
    entry:
    functions.toPersist (
      { inherit (entry) path; } // lib.optionalAttrs (entry.exclude != [ ]) { inherit (entry) exclude; }
    );
in
{
  options.darlings = paths {
    directories = [
      "Documents"
      {
        directory = ".ssh";
        mode = "0700";
      }
    ];
    files = [ ".bash_history" ];
  };

  config = lib.mkIf (!(config.submoduleSupport.enable or false) && declared != [ ]) {
    assertions = map (entry: {
      assertion = functions.isAtOrBelow home entry.path && !functions.hasDotDot entry.path;
      message = "darlings: \"${entry.path}\" is outside the home \"${home}\"; a user persists only what is in it.";
    }) declared;

    # An entry of lib.hm.dag, written out so that nothing else of Home Manager is needed.
    home.activation.darlings = {
      after = [ "writeBoundary" ];
      before = [ ];
      data = ''
        darlingsMissing=
        # The PATH of an activation has nothing of the system.
        darlingsProgram=$(PATH=$PATH:/run/current-system/sw/bin:/usr/local/bin:/usr/bin type -P darlings || true)
        if [[ -n $darlingsProgram ]]; then
          ${lib.concatMapStringsSep "\n  " (entry: ''
            darlingsExit=0
            "$darlingsProgram" explain ${lib.escapeShellArg entry.path} >/dev/null 2>&1 || darlingsExit=$?
            if [[ $darlingsExit = 3 ]]; then
              darlingsMissing+=${lib.escapeShellArg "${table entry}\n\n"}
            fi
          '') declared}
        fi
        if [[ -n $darlingsMissing ]]; then
          echo "darlings: the next boot erases what this configuration declares. Add to /etc/darlings.toml, or on" >&2
          echo "NixOS the same paths to darlings.users:" >&2
          printf '%s' "$darlingsMissing" >&2
        fi
      '';
    };
  };
}
