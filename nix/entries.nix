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
      description = "The user who owns ${who} when it is made. The default is root, or for the paths of a user that user.";
    };
    group = mkOption {
      type = nullOr str;
      default = null;
      example = "colord";
      description = "The group of ${who} when it is made. The default is root, or for the paths of a user their own group.";
    };
    mode = mkOption {
      type = nullOr str;
      default = null;
      example = "u=rwx,g=rx,o=";
      description = "The mode of ${who} when it is made, in octal or as chmod(1) writes what a mode shall be. The default is 0755 for directories, 0644 for files, and a user's `homeMode` for that user's home itself.";
    };
  };

  common = {
    create = mkOption {
      type = nullOr bool;
      default = null;
      example = false;
      description = ''
        Whether to make it when it is missing, with its owner and mode. What is there is never changed.

        By default directories are made, and a file only if its owner or mode is given or
        `darlings.createFiles` is set: many programs treat an empty file differently from a missing one.
      '';
    };
    exclude = mkOption {
      type = listOf str;
      default = [ ];
      example = [ ".cache" ];
      description = "Literal paths below it that are not kept.";
    };
    parentDirectory = mkOption {
      type = nullOr (submodule { options = owner "the directory that holds it" // withoutMeaning reasons.entry; });
      default = null;
      example = {
        mode = "0700";
      };
      description = "Owner and mode of the directory that holds it, when that is made. Without it, it is root's with mode 0755, or below a home that user's.";
    };
    parent = mkOption {
      type = nullOr (submodule { options = owner "the directory that holds it"; });
      default = null;
      example = {
        mode = "0700";
      };
      description = "The same as `parentDirectory`, as preservation spells it.";
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
          description = "The path of the ${what}: absolute, or for the paths of a user relative to the home.";
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
      description = "Directories that are kept, each with all that is in it. A string is the path alone.";
    };
    files = mkOption {
      type = listOf (path "file" "file");
      default = [ ];
      example = example.files;
      description = "Files that are kept. A string is the path alone.";
    };
  };
in
{
  inherit paths reasons withoutMeaning;
}
