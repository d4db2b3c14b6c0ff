# The options that impermanence and preservation document, and what becomes of each here. A row has a store with
# the option in it, and either what is persisted and made, or a store that comes to the same without it.
# docs/nixos.md has the rows as tables, with `here` beside the option.
let
  reasons = import ../../nix/meaningless.nix;
  taken = option: here: store: persisted: made: {
    inherit
      option
      here
      store
      persisted
      made
      ;
  };
  # Nothing comes of it.
  unneeded = option: why: store: same: {
    inherit option store same;
    here = "not needed: ${why}";
  };
  d = path: "d \"${path}\" :0755 :root :root - -";
  home = "d \"/home/mia\" :700 :mia :users - -";
  ofMia = path: "d \"/home/mia/${path}\" :0755 :mia :users - -";
  dir = more: { directories = [ ({ directory = "/srv/d"; } // more) ]; };
  file = more: { files = [ ({ file = "/srv/f"; } // more) ]; };
  mia = paths: { users.mia = paths; };

  common = [
    (taken "directories" "`darlings.directories`" { directories = [ "/srv/d" ]; } [ "/srv/d" ] [ (d "/srv/d") ])
    (taken "directories.*.directory" "taken over" (dir { }) [ "/srv/d" ] [ (d "/srv/d") ])
    (taken "directories.*.user" "taken over, for when it is made" (dir { user = "mia"; }) [ "/srv/d" ] [
      "d \"/srv/d\" :0755 :mia :root - -"
    ])
    (taken "directories.*.group" "taken over, for when it is made" (dir { group = "media"; }) [ "/srv/d" ] [
      "d \"/srv/d\" :0755 :root :media - -"
    ])
    (taken "directories.*.mode" "taken over, for when it is made; in octal or as `u=rwx,g=rx,o=`"
      (dir { mode = "u=rwx,g=rx,o="; })
      [ "/srv/d" ]
      [ "d \"/srv/d\" :0750 :root :root - -" ]
    )
    (taken "files.*.file" "taken over" (file { }) [ "/srv/f" ] [ (d "/srv") ])
    (taken "users.<name>.directories" "`darlings.users.<name>.directories`; what leads there is made as the user's"
      (mia { directories = [ ".a/b" ]; })
      [ "/home/mia/.a/b" ]
      [
        home
        (ofMia ".a")
        (ofMia ".a/b")
      ]
    )
    (taken "users.<name>.files" "`darlings.users.<name>.files`" (mia { files = [ ".a/f" ]; }) [ "/home/mia/.a/f" ] [
      home
      (ofMia ".a")
    ])
    (unneeded "persistentStoragePath" reasons.store.persistentStoragePath (dir { } // { persistentStoragePath = "/other"; }) (
      dir { }
    ))
  ];
in
{
  impermanence = common ++ [
    (taken "files" "`darlings.files`; the directory above is made, the file is not" { files = [ "/srv/f" ]; } [ "/srv/f" ] [ (d "/srv") ])
    (taken "enable" "taken over: a store that is off adds nothing" (dir { } // { enable = false; }) [ ] [ ])
    (unneeded "hideMounts" reasons.store.hideMounts (dir { } // { hideMounts = true; }) (dir { }))
    (unneeded "allowTrash" reasons.store.allowTrash (dir { } // { allowTrash = true; }) (dir { }))
    (unneeded "enableWarnings" reasons.store.enableWarnings (dir { } // { enableWarnings = false; }) (dir { }))
    (unneeded "directories.*.persistentStoragePath" reasons.entry.persistentStoragePath
      (dir { persistentStoragePath = "/other"; })
      (dir { })
    )
    (unneeded "directories.*.hideMount" reasons.entry.hideMount (dir { hideMount = true; }) (dir { }))
    (unneeded "directories.*.allowTrash" reasons.entry.allowTrash (dir { allowTrash = true; }) (dir { }))
    (unneeded "files.*.persistentStoragePath" reasons.entry.persistentStoragePath
      (file { persistentStoragePath = "/other"; })
      (file { })
    )
    (unneeded "files.*.method" reasons.entry.method (file { method = "symlink"; }) (file { }))
    (taken "files.*.parentDirectory.{user,group,mode}" "taken over, for when the directory is made"
      (file {
        parentDirectory = {
          user = "mia";
          group = "media";
          mode = "u=rwx,g=,o=";
        };
      })
      [ "/srv/f" ]
      [ "d \"/srv\" :0700 :mia :media - -" ]
    )
  ];

  preservation = common ++ [
    (taken "files" "`darlings.files`; made empty where they are missing only with `darlings.createFiles`" { files = [ "/srv/f" ]; } [ "/srv/f" ] [ (d "/srv") ])
    (unneeded "commonMountOptions" reasons.store.commonMountOptions (dir { } // { commonMountOptions = [ "x-gvfs-hide" ]; }) (
      dir { }
    ))
    (unneeded "directories.*.how" "${reasons.entry.how}; `adopt` replaces links into a store" (dir { how = "symlink"; }) (
      dir { }
    ))
    (taken "directories.*.how = \"_intermediate\"" "left out: what leads to a persisted path is made anyway"
      (dir { how = "_intermediate"; })
      [ ]
      [ ]
    )
    (unneeded "directories.*.inInitrd" reasons.entry.inInitrd (dir { inInitrd = true; }) (dir { }))
    (unneeded "directories.*.mountOptions" reasons.entry.mountOptions (dir { mountOptions = [ "noexec" ]; }) (dir { }))
    (unneeded "directories.*.createLinkTarget" "a missing directory is always made" (dir {
      how = "symlink";
      createLinkTarget = true;
    }) (dir { }))
    (unneeded "directories.*.configureParent" "the directory above is made in any case, as `parent` says where it is given" (dir {
      configureParent = true;
    }) (dir { }))
    (taken "directories.*.parent.{user,group,mode}" "taken over, for when the directory is made; not with `configureParent = false`"
      (dir {
        configureParent = true;
        parent = {
          user = "mia";
          group = "media";
          mode = "0700";
        };
      })
      [ "/srv/d" ]
      [
        "d \"/srv\" :0700 :mia :media - -"
        (d "/srv/d")
      ]
    )
    (taken "files.*.{user,group,mode}" "taken over; such a file is made empty where it is missing"
      (file {
        user = "mia";
        group = "media";
        mode = "0600";
      })
      [ "/srv/f" ]
      [ "f \"/srv/f\" :0600 :mia :media - -" ]
    )
    (unneeded "files.*.how" "${reasons.entry.how}; `adopt` replaces links into a store" (file { how = "symlink"; }) (
      file { }
    ))
    (taken "files.*.createLinkTarget" "taken over: the file is made empty where it is missing, and without it what a link leads to is not"
      (file {
        how = "symlink";
        createLinkTarget = true;
      })
      [ "/srv/f" ]
      [ "f \"/srv/f\" :0644 :root :root - -" ]
    )
    (unneeded "files.*.inInitrd" reasons.entry.inInitrd (file { inInitrd = true; }) (file { }))
    (unneeded "files.*.mountOptions" reasons.entry.mountOptions (file { mountOptions = [ "ro" ]; }) (file { }))
    (unneeded "files.*.configureParent" "the directory above is made in any case, as `parent` says where it is given" (file {
      configureParent = true;
    }) (file { }))
    (taken "files.*.parent.{user,group,mode}" "taken over, for when the directory is made; not with `configureParent = false`"
      (file { parent.mode = "0700"; })
      [ "/srv/f" ]
      [ "d \"/srv\" :0700 :root :root - -" ]
    )
    (taken "users.<name>.username" "taken over"
      {
        users.work = {
          username = "mia";
          files = [ "f" ];
        };
      }
      [ "/home/mia/f" ]
      [ home ]
    )
    (taken "users.<name>.home" "taken over"
      (mia {
        home = "/srv/mia";
        files = [ "f" ];
      })
      [ "/srv/mia/f" ]
      [ "d \"/srv/mia\" :700 :mia :users - -" ]
    )
    (unneeded "users.<name>.commonMountOptions" reasons.user.commonMountOptions
      (mia {
        files = [ "f" ];
        commonMountOptions = [ "x-gvfs-hide" ];
      })
      (mia { files = [ "f" ]; })
    )
  ];
}
