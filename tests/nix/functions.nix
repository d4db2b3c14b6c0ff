# What nix/lib.nix says of single values, beside what it should say.
{ lib }:
let
  functions = import ../../nix/lib.nix { inherit lib; };
  inherit (functions)
    between
    devicePath
    escapePath
    holder
    isMode
    mountOption
    normalize
    octalMode
    tmpfilesLine
    ;
  preserved =
    users:
    (functions.fromPreservation {
      "/persist" = { inherit users; };
      "/state".users.mia = {
        home = "/home/mia";
        files = [ "x" ];
      };
    }).users;
  evaluates = value: (builtins.tryEval (builtins.deepSeq value true)).success;
  case = name: found: expected: { inherit name found expected; };
in
[
  (case "a path loses what it has too much" (map normalize [
    "/var//log/./"
    "/"
    "//"
    "/a"
  ]) [ "/var/log" "/" "/" "/a" ])
  (case "a path becomes a unit's name" (map escapePath [
    "/dev/disk/by-label/root"
    "/sysroot/.a b"
    "/.a"
    "/"
  ]) [ "dev-disk-by\\x2dlabel-root" "sysroot-.a\\x20b" "\\x2ea" "-" ])
  (case "a tag becomes a device" (map devicePath [
    "LABEL=nixos"
    "UUID=1-2"
    "PARTLABEL=\"disk main\""
    "/dev/mapper/crypt"
  ]) [ "/dev/disk/by-label/nixos" "/dev/disk/by-uuid/1-2" "/dev/disk/by-partlabel/disk main" "/dev/mapper/crypt" ])
  (case "modes become octal" (map octalMode [
    "0750"
    "755"
    "u=rwx,g=rx,o="
    "a=rx,u=rwx"
    "ug=rwxs,o=t"
  ]) [ "0750" "755" "0750" "0755" "7770" ])
  (case "a mode that changes what is there is none" (map isMode [
    "u+w"
    "0799"
    ""
    "u=rw"
  ]) [ false false false true ])
  (case "what lies between" (between "/home/mia" "/home/mia/.local/share/x") [
    "/home/mia/.local"
    "/home/mia/.local/share"
  ])
  (case "nothing lies between neighbours, or outside" [
    (between "/home/mia" "/home/mia/x")
    (between "/home/mia" "/srv/x")
  ] [ [ ] [ ] ])
  (case "the innermost place holds a path" (map
    (holder [
      "/"
      "/home"
      "/home/mia"
    ])
    [
      "/home/miami"
      "/home/mia/x"
      "/srv"
    ]
  ) [ "/home" "/home/mia" "/" ])
  (case "no place holds it" (holder [ "/home" ] "/srv") null)
  (case "the last mount option counts" (mountOption "subvol" [
    "compress=zstd,subvol=@a"
    "subvol=@b"
    "subvolid=5"
  ]) "@b")
  (case "a user of preservation may have another name than the attribute, and another home"
    (preserved {
      work = {
        username = "mia";
        home = "/srv/mia";
        directories = [ ".ssh" ];
      };
    }).work
    {
      username = "mia";
      home = "/srv/mia";
      directories = [ { directory = ".ssh"; } ];
      files = [ ];
    }
  )
  (case "two stores that say the same of a user, and two that do not" (map (user: evaluates (preserved { mia = user; })) [
    { home = "/home/mia"; }
    { home = "/srv/mia"; }
  ]) [ true false ])
  (case "preservation makes no file that a link leads to, unless asked"
    (map (file: file.create or null)
      (functions.fromPreservation {
        "/persist".files = [
          "/a"
          {
            file = "/b";
            how = "symlink";
            mode = "0600";
          }
          {
            file = "/c";
            how = "symlink";
            createLinkTarget = true;
          }
        ];
      }).files
    )
    [
      null
      false
      true
    ]
  )
  (case "tmpfiles.d gets its quotes and no specifiers" (tmpfilesLine {
    type = "d";
    path = "/a \"b\" %h\\c";
    user = "mia";
    group = "users";
    mode = "u=rwx";
  }) "d \"/a \\\"b\\\" %%h\\\\c\" :0700 :mia :users - -")
]
