# The lines of tmpfiles.d that make what is missing. systemd-tmpfiles runs once users exist.
{ lib, resolved }:
let
  inherit (resolved) entries functions;
  inherit (functions) between parent tmpfilesLine;

  wanted = lib.filter (entry: entry.create) entries;

  directory = path: owner: mode: {
    ${path} = {
      type = "d";
      inherit path mode;
      inherit (owner) user group;
    };
  };

  merge = lib.foldl' (all: one: all // one) { };

  # What leads from a home to what is kept in it is the user's, like the home itself. systemd-tmpfiles
  # would make it root's.
  leading =
    entry:
    if entry.home == null then
      { }
    else
      merge (
        [ (directory entry.home entry.owner entry.owner.homeMode) ]
        ++ map (path: directory path entry.owner "0755") (between entry.home entry.path)
      );

  # systemd-tmpfiles makes the directories above what it makes. Above a file that is only kept it makes
  # none, and its program may not either.
  implied =
    entry:
    let
      above = parent entry.path;
    in
    if entry.home != null || entry.create || entry.kind == "directory" || lib.elem above [ "/" "/etc" ] then
      { }
    else
      directory above {
        user = "root";
        group = "root";
      } "0755";

  parents =
    entry:
    if entry.parent == null then
      { }
    else
      directory (parent entry.path) entry.parent entry.parent.mode;

  itself = entry: {
    ${entry.path} = {
      type = if entry.kind == "file" then "f" else "d";
      inherit (entry)
        path
        user
        group
        mode
        ;
    };
  };
in
# What is said of a directory itself counts more than what is said of it as a parent.
lib.mapAttrsToList (_: tmpfilesLine) (
  merge (map implied entries ++ map leading entries ++ map parents entries ++ map itself wanted)
)
