# Functions that need nothing but nixpkgs' lib: paths, what is written, and what comes from others.
{ lib }:
let
  inherit (lib)
    concatMap
    concatMapStringsSep
    concatStringsSep
    elem
    filter
    filterAttrs
    hasPrefix
    mapAttrs
    mapAttrsToList
    optionalAttrs
    splitString
    ;

  # --- paths -------------------------------------------------------------------

  parts = path: filter (part: part != "" && part != ".") (splitString "/" path);

  isAbsolute = hasPrefix "/";

  hasDotDot = path: elem ".." (parts path);

  # "/var//log/./" to "/var/log". Says nothing of "..", which nobody should write.
  normalize = path: "/" + concatStringsSep "/" (parts path);

  # A path below another one, which may be written with a slash before it.
  below = above: path: normalize "${above}/${path}";

  # A path as Home Manager's users write it: relative to the home, or whole.
  inHome = home: path: if isAbsolute path then normalize path else below home path;

  # Whether a normal path is `above` or lies in it.
  isAtOrBelow = above: path: above == "/" || path == above || hasPrefix "${above}/" path;

  isBelow = above: path: path != above && isAtOrBelow above path;

  parent = path: normalize (dirOf path);

  # The directories between two normal paths, the outermost first, without either.
  between =
    above: path:
    let
      up = parent path;
    in
    if !(isBelow above path) || up == above then [ ] else between above up ++ [ up ];

  # The longest of normal paths that holds another; null if none does.
  holder =
    places: path:
    lib.foldl' (
      best: place:
      if isAtOrBelow place path && (best == null || lib.stringLength place > lib.stringLength best) then
        place
      else
        best
    ) null places;

  # As systemd-escape --path has it.
  escapePath =
    path:
    let
      escaped = lib.strings.escapeC (lib.stringToCharacters " !\"#$%&'()*+,;<=>@[\\]^`{|}~-") (
        concatStringsSep "/" (parts path)
      );
      dotted = if hasPrefix "." escaped then "\\x2e" + lib.removePrefix "." escaped else escaped;
    in
    if dotted == "" then "-" else lib.replaceStrings [ "/" ] [ "-" ] dotted;

  # --- devices -----------------------------------------------------------------

  # mount(8) understands tags where a reset needs the node.
  devicePath =
    device:
    let
      tags = {
        "LABEL=" = "by-label";
        "UUID=" = "by-uuid";
        "PARTLABEL=" = "by-partlabel";
        "PARTUUID=" = "by-partuuid";
      };
      matching = filterAttrs (tag: _: hasPrefix tag device) tags;
      path = mapAttrsToList (
        tag: folder: "/dev/disk/${folder}/" + lib.replaceStrings [ "\"" ] [ "" ] (lib.removePrefix tag device)
      ) matching;
    in
    if matching == { } then device else lib.head path;

  # The value of a mount option that is given as NAME=VALUE; null without it.
  mountOption =
    name: options:
    let
      all = concatMap (splitString ",") options;
      values = filter (hasPrefix "${name}=") all;
    in
    if values == [ ] then null else lib.removePrefix "${name}=" (lib.last values);

  # --- TOML --------------------------------------------------------------------

  # A JSON string is a TOML string: TOML knows every escape that JSON writes.
  tomlValue =
    value:
    if lib.isAttrs value then
      "{ "
      + concatStringsSep ", " (
        map (key: "${key} = ${tomlValue value.${key}}") (filter (key: value ? ${key}) tomlOrder)
      )
      + " }"
    else if lib.isList value then
      "[${concatMapStringsSep ", " tomlValue value}]"
    else
      builtins.toJSON value;

  # The order in which a person would write them.
  tomlOrder = [
    "mount_point"
    "strategy"
    "device"
    "dataset"
    "subvolume"
    "path"
    "blank"
    "generations"
    "newer_snapshots"
    "days"
    "min_free"
    "zfs"
    "btrfs"
    "dir"
    "keep"
    "exclude"
  ];

  tomlTable =
    name: table:
    concatStringsSep "\n" (
      [ "[[${name}]]" ]
      ++ map (key: "${key} = ${tomlValue table.${key}}") (filter (key: table ? ${key}) tomlOrder)
    );

  toPersist = tomlTable "persist";

  # { onFailure, volumes, persist } to the file that `darlings` reads.
  toToml =
    {
      onFailure,
      volumes,
      persist,
    }:
    concatStringsSep "\n\n" (
      [
        "# Written by the NixOS module of darlings."
        "on_failure = ${tomlValue onFailure}"
      ]
      ++ map (tomlTable "volume") volumes
      ++ map toPersist persist
    )
    + "\n";

  withoutNulls = filterAttrs (_: value: value != null);

  # --- modes -------------------------------------------------------------------

  isOctal = mode: builtins.match "[0-7]{3,4}" mode != null;

  # "u=rwx,g=rx,o=", as impermanence's users write it. What chmod(1) would do to a mode that is there
  # ("u+w") means nothing for something that is made.
  isSymbolic =
    mode: builtins.match "[ugoa]+=[rwxst]*(,[ugoa]+=[rwxst]*)*" mode != null;

  isMode = mode: isOctal mode || isSymbolic mode;

  # A mode in octal; symbolic ones begin at nothing.
  octalMode =
    mode:
    if !isSymbolic mode then
      mode
    else
      let
        clauses = map (clause: builtins.match "([ugoa]+)=([rwxst]*)" clause) (splitString "," mode);
        has = letter: text: lib.hasInfix letter text;
        # The last clause that names somebody counts.
        rights =
          who:
          lib.foldl' (
            rights: clause:
            if has who (lib.head clause) || has "a" (lib.head clause) then lib.last clause else rights
          ) "" clauses;
        bit = condition: value: if condition then value else 0;
        digit = text: toString (bit (has "r" text) 4 + bit (has "w" text) 2 + bit (has "x" text) 1);
        special =
          bit (has "s" (rights "u")) 4 + bit (has "s" (rights "g")) 2 + bit (has "t" (rights "o")) 1;
      in
      toString special + digit (rights "u") + digit (rights "g") + digit (rights "o");

  # --- tmpfiles.d --------------------------------------------------------------

  # tmpfiles.d takes quoted words with C's escapes, and % for specifiers.
  tmpfilesWord =
    word:
    "\"" + lib.replaceStrings [ "\\" "\"" "%" "\n" "\t" ] [ "\\\\" "\\\"" "%%" "\\n" "\\t" ] word + "\"";

  # A line that makes something that is missing, and leaves alone what is there: that is what the
  # colons say.
  tmpfilesLine =
    {
      type,
      path,
      user,
      group,
      mode,
    }:
    "${type} ${tmpfilesWord path} :${octalMode mode} :${user} :${group} - -";

  # --- what comes from other projects ----------------------------------------

  asEntry = key: entry: if lib.isString entry then { ${key} = entry; } else entry;

  # What an entry of impermanence or preservation says that has a meaning here. Both spell the parent
  # in their own way; what they compute for themselves is left out.
  entryFrom =
    key: entry:
    let
      given = asEntry key entry;
      above = given.parentDirectory or (if given.configureParent or true then given.parent or { } else { });
      known = filterAttrs (
        name: value:
        value != null
        && elem name [
          "user"
          "group"
          "mode"
        ]
      );
    in
    { ${key} = given.${key}; }
    # preservation makes what a link leads to only if asked to.
    // optionalAttrs (key == "file" && (given.how or null) == "symlink") {
      create = given.createLinkTarget or false;
    }
    // known given
    // optionalAttrs (known above != { }) { parentDirectory = known above; };

  # preservation lists directories between a home and what is kept, which are made here anyway.
  isIntermediate = entry: lib.isAttrs entry && (entry.how or null) == "_intermediate";

  # What lib.mkIf, lib.mkMerge and their like make only the module system understands, and it has not seen
  # this yet.
  plain =
    function: name: value:
    let
      hasType = it: lib.isAttrs it && it ? _type;
    in
    if hasType value || (lib.isList value && lib.any hasType value) then
      throw "darlings: ${function}: ${name} has something of lib.mkIf, lib.mkMerge or the like in it, which only options understand; use lib.optionals or lib.optionalAttrs there, or put lib.mkIf before ${function}."
    else
      value;

  pathsFrom =
    taken: name: given:
    let
      store = taken name given;
    in
    {
      directories = map (entryFrom "directory") (
        filter (entry: !isIntermediate entry) (taken "${name}.directories" (store.directories or [ ]))
      );
      files = map (entryFrom "file") (taken "${name}.files" (store.files or [ ]));
    };

  # Whose paths they are, which is the user of that name in that user's home unless a store says otherwise.
  ofPerson = [
    "home"
    "username"
  ];

  storeFrom =
    taken: name: store:
    pathsFrom taken name store
    // {
      users = mapAttrs (
        user: paths:
        pathsFrom taken "${name}.users.${user}" paths // lib.getAttrs (filter (key: paths ? ${key}) ofPerson) paths
      ) (taken "${name}.users" (store.users or { }));
    };

  # impermanence's module for Home Manager, which may have had the home at the end of the store's path, and a
  # directory before each path that stow(1) would leave out.
  fromHome =
    function: given:
    let
      taken = plain function;
      all = mapAttrsToList (
        name: store:
        let
          paths = pathsFrom taken "\"${name}\"" store;
          cut =
            key: entry:
            if store.removePrefixDirectory or false then
              entry // { ${key} = concatStringsSep "/" (lib.drop 1 (parts entry.${key})); }
            else
              entry;
        in
        {
          directories = map (cut "directory") paths.directories;
          files = map (cut "file") paths.files;
        }
      ) (filterAttrs (name: store: taken "\"${name}\".enable" (store.enable or true)) (taken "its argument" given));
    in
    {
      directories = concatMap (store: store.directories) all;
      files = concatMap (store: store.files) all;
    };

  # Several stores become one: there is one place for each path here, its own.
  fromStores =
    function: given:
    let
      taken = plain function;
      stores = mapAttrs (name: taken "\"${name}\"") (taken "its argument" given);
      all = mapAttrsToList (name: storeFrom taken "\"${name}\"") (
        filterAttrs (name: store: taken "\"${name}\".enable" (store.enable or true)) stores
      );
      users = lib.unique (concatMap (store: lib.attrNames store.users) all);
      ofUser = name: map (store: store.users.${name} or { }) all;
      person =
        name:
        lib.zipAttrsWith (
          key: values:
          if lib.length (lib.unique values) > 1 then
            throw "darlings: ${function}: users.${name}.${key} is ${
              concatMapStringsSep " in one store and " (value: "\"${value}\"") (lib.unique values)
            } in another; translate the stores one by one, and rename the user's attribute in one result (`username` says whose it is)."
          else
            lib.head values
        ) (map (user: lib.getAttrs (filter (key: user ? ${key}) ofPerson) user) (ofUser name));
    in
    {
      directories = concatMap (store: store.directories) all;
      files = concatMap (store: store.files) all;
      users = lib.genAttrs users (
        name:
        {
          directories = concatMap (user: user.directories or [ ]) (ofUser name);
          files = concatMap (user: user.files or [ ]) (ofUser name);
        }
        // person name
      );
    };
in
{
  inherit
    between
    below
    devicePath
    escapePath
    hasDotDot
    holder
    inHome
    isAbsolute
    isAtOrBelow
    isBelow
    isMode
    mountOption
    normalize
    octalMode
    parent
    tmpfilesLine
    toPersist
    toToml
    withoutNulls
    ;

  # What `environment.persistence` of impermanence says, as `darlings` takes it:
  #
  #     darlings = { enable = true; ... } // lib.darlings.fromPersistence { "/persist" = { ... }; };
  fromPersistence = fromStores "fromPersistence";

  # The same of `home.persistence`, for `darlings` in a user's Home Manager.
  fromHomePersistence = fromHome "fromHomePersistence";

  # The same of preservation's `preservation.preserveAt`.
  fromPreservation = fromStores "fromPreservation";
}
