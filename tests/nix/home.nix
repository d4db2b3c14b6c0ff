# Users' own configurations: as a module of NixOS, and standalone.
{ lib, messages, evaluate, preSwitchChecks, right }:
let
  # As much of Home Manager as the module reads and sets.
  homeManager =
    { config, ... }:
    {
      options = {
        assertions = lib.mkOption {
          type = lib.types.listOf lib.types.raw;
          default = [ ];
        };
        home.username = lib.mkOption { type = lib.types.str; };
        home.homeDirectory = lib.mkOption { type = lib.types.path; };
        home.activation = lib.mkOption {
          type = lib.types.attrsOf lib.types.raw;
          default = { };
        };
        submoduleSupport.enable = lib.mkOption {
          type = lib.types.bool;
          default = false;
        };
      };
    };

  asModuleOfNixos =
    { config, ... }:
    {
      options.home-manager.sharedModules = lib.mkOption {
        type = lib.types.listOf lib.types.raw;
        default = [ ];
      };
      options.home-manager.users = lib.mkOption {
        default = { };
        type = lib.types.attrsOf (
          lib.types.submoduleWith {
            modules = [
              homeManager
              (
                { name, ... }:
                {
                  submoduleSupport.enable = true;
                  home.username = lib.mkDefault name;
                  home.homeDirectory = config.users.users.${name}.home;
                }
              )
            ]
            ++ config.home-manager.sharedModules;
          }
        );
      };
    };

  functions = import ../../nix/lib.nix { inherit lib; };

  nixos =
    home:
    evaluate [
      preSwitchChecks
      right
      asModuleOfNixos
      {
        users.users.mia.home = lib.mkForce "/srv/mia";
        home-manager.users.mia = home;
      }
    ];

  persisted =
    { config, ... }:
    map (entry: entry.path) (
      lib.filter (entry: entry.home != null) (import ../../nix/resolve.nix { inherit config lib; }).kept
    );

  standalone =
    darlings:
    (lib.evalModules {
      modules = [
        homeManager
        ../../nix/home-manager.nix
        {
          home.username = "mia";
          home.homeDirectory = "/home/mia";
          inherit darlings;
        }
      ];
    }).config;

  lists = {
    directories = [
      "projects"
      "/srv/mia/.local/share/x"
      {
        directory = ".ssh";
        mode = "0700";
        exclude = [ "control" ];
      }
    ];
    files = [ ".bash_history" ];
  };
  case = name: found: expected: { inherit name found expected; };
in
{
  cases = [
    (case "a user's own lists are collected, in that user's home" (persisted (nixos { darlings = lists; })) [
      "/srv/mia/projects"
      "/srv/mia/.local/share/x"
      "/srv/mia/.ssh"
      "/srv/mia/.bash_history"
    ])
    (case "what is missing is made as the user's"
      (lib.filter (lib.hasInfix "/srv/mia") (nixos { darlings = lists; }).config.systemd.tmpfiles.rules)
      [
        "d \"/srv/mia\" :700 :mia :users - -"
        "d \"/srv/mia/.local\" :0755 :mia :users - -"
        "d \"/srv/mia/.local/share\" :0755 :mia :users - -"
        "d \"/srv/mia/.local/share/x\" :0755 :mia :users - -"
        "d \"/srv/mia/.ssh\" :0700 :mia :users - -"
        "d \"/srv/mia/projects\" :0755 :mia :users - -"
      ]
    )
    (case "nothing in a user's own activation" (nixos { darlings = lists; })
      .config.home-manager.users.mia.home.activation { })
    (case "a user reaches nothing outside the home" (messages (nixos {
      darlings.files = [
        "/etc/shadow"
        "../tom/x"
      ];
      darlings.directories = [
        {
          directory = "projects";
          exclude = [ "../../tom" ];
        }
      ];
    })) {
      assertions = [
        "home-manager.users.mia.darlings.directories: \"projects\": `..` is not allowed in paths; write the path itself."
        "home-manager.users.mia.darlings.files: \"/etc/shadow\" is outside the home \"/srv/mia\"; a user persists only what is in it."
        "home-manager.users.mia.darlings.files: \"../tom/x\": `..` is not allowed in paths; write the path itself."
      ];
      warnings = [ ];
    })
    (case "the lists of impermanence's module for Home Manager"
      (persisted (nixos {
        darlings = functions.fromHomePersistence {
          "/persist/home/mia" = {
            allowOther = true;
            removePrefixDirectory = true;
            directories = [ "ssh/.ssh" ];
            files = [ "zsh/.config/zsh/history" ];
          };
          "/persist".directories = [
            {
              directory = "Music";
              method = "symlink";
            }
          ];
        };
      }))
      [
        "/srv/mia/Music"
        "/srv/mia/.ssh"
        "/srv/mia/.config/zsh/history"
      ]
    )
    (case "standalone, a path outside the home is refused" (map (it: it.assertion) (standalone {
      files = [
        "/etc/shadow"
        "/home/mia/../tom/x"
        "/home/mia/x"
      ];
    }).assertions) [ false false true ])
    (case "standalone, without a list there is nothing to ask" (standalone { }).home.activation { })
  ];

  script = (standalone {
    directories = [
      "it's kept"
      {
        directory = "projects";
        exclude = [ "target" ];
      }
    ];
  }).home.activation.darlings.data;
}
