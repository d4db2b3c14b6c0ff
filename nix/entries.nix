# The options of the lists of what is kept: on a machine, for a user, and in a user's Home Manager.
{ lib }:
let
  inherit (lib) mkOption types;
  inherit (types)
    bool
    coercedTo
    listOf
    nullOr
    str
    submodule
    ;

  # Options of impermanence and preservation that say how a bind mount or a link is made. They are
  # taken so that a configuration can be moved without taking it apart; a warning says why each does
  # nothing. `null` is "not given".
  withoutMeaning = mapMeaningless: lib.mapAttrs meaningless mapMeaningless;

  meaningless =
    _: why:
    mkOption {
      type = nullOr types.raw;
      default = null;
      example = true;
      description = "Has no meaning here, and a warning says so: ${why}.";
    };

  reasons = import ./meaningless.nix;

  owner = who: {
    user = mkOption {
      type = nullOr str;
      default = null;
      example = "colord";
      description = "The owner of ${who}, if it has to be created. Defaults to root, or to the user for that user's paths.";
    };
    group = mkOption {
      type = nullOr str;
      default = null;
      example = "colord";
      description = "The group of ${who}, if it has to be created. Defaults to root, or to the user's group for that user's paths.";
    };
    mode = mkOption {
      type = nullOr str;
      default = null;
      example = "u=rwx,g=rx,o=";
      description = "The mode of ${who}, if it has to be created, in octal or in the symbolic notation of chmod(1). Defaults to 0755 for directories, 0644 for files, and a user's `homeMode` for that user's home itself.";
    };
  };

  common = {
    create = mkOption {
      type = nullOr bool;
      default = null;
      example = false;
      description = ''
        Whether to create it, with its owner and mode, if it is missing. Existing entries are never changed.

        By default, directories are created, but a file only if its owner or mode is given or
        `darlings.createFiles` is set: many programs treat an empty file differently from a missing one.
      '';
    };
    exclude = mkOption {
      type = listOf str;
      default = [ ];
      example = [ ".cache" ];
      description = "Literal paths below it that are not persisted.";
    };
    parentDirectory = mkOption {
      type = nullOr (submodule { options = owner "the parent directory" // withoutMeaning reasons.entry; });
      default = null;
      example = {
        mode = "0700";
      };
      description = "Owner and mode of the parent directory, if it has to be created. Without this, it belongs to root with mode 0755, or to the user below that user's home.";
    };
    parent = mkOption {
      type = nullOr (submodule { options = owner "the parent directory"; });
      default = null;
      example = {
        mode = "0700";
      };
      description = "preservation's name for `parentDirectory`.";
    };
  };

  path =
    key: what:
    coercedTo str (given: { ${key} = given; }) (submodule {
      options = {
        ${key} = mkOption {
          type = str;
          default = "";
          example = if key == "file" then "/etc/machine-id" else "/var/lib/bluetooth";
          description = "The path of the ${what}: absolute, or relative to the home for a user's paths.";
        };
      }
      // owner "the ${what}"
      // common
      // withoutMeaning reasons.entry;
    });

  paths = example: {
    directories = mkOption {
      type = listOf (path "directory" "directory");
      default = [ ];
      example = example.directories;
      description = "Directories to persist, with everything in them. A plain string is just the path.";
    };
    files = mkOption {
      type = listOf (path "file" "file");
      default = [ ];
      example = example.files;
      description = "Files to persist. A plain string is just the path.";
    };
  };
in
{
  inherit paths reasons withoutMeaning;
}
