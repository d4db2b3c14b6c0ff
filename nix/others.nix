# What impermanence and preservation still bring from stores of theirs, where their options are set beside ours.
{ config, lib, functions }:
let
  inherit (lib) concatLists concatMap filterAttrs mapAttrsToList;
  inherit (functions) below isAtOrBelow normalize;

  # Newer versions of impermanence say the whole path; both make it absolute for the paths of a user, but
  # older ones do not.
  place =
    home: key: whole: entry:
    let
      given = entry.${whole} or entry.${key};
    in
    if home == null || lib.hasPrefix "/" given then normalize given else below home given;

  pathsOf =
    home: lists:
    map (place home "directory" "dirPath") (lists.directories or [ ])
    ++ map (place home "file" "filePath") (lists.files or [ ]);

  homeOf = name: config.users.users.${name}.home or "/home/${name}";

  ofStore =
    store:
    pathsOf null store
    ++ concatLists (
      mapAttrsToList (name: user: pathsOf (user.home or (homeOf (user.username or name))) user) (store.users or { })
    );

  tool =
    name: option: given:
    let
      stores = filterAttrs (_: store: store.enable or true) given;
      paths = concatMap ofStore (lib.attrValues stores);
    in
    {
      inherit name option paths;
      stores = mapAttrsToList (place: store: normalize (store.persistentStoragePath or place)) (
        filterAttrs (_: store: ofStore store != [ ]) stores
      );
    };
in
rec {
  tools = [
    (tool "impermanence" "environment.persistence" (config.environment.persistence or { }))
    (tool "preservation" "preservation.preserveAt" (
      lib.optionalAttrs (config.preservation.enable or false) config.preservation.preserveAt
    ))
  ];

  # Whether what is at a path comes from a store.
  brings = tool: path: lib.any (given: isAtOrBelow given path) tool.paths;
  isBrought = path: lib.any (tool: brings tool path) tools;
}
