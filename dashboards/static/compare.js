/* The page Compare: two commits, two machines or two implementations, case by case.
   One machine's kernl at two commits is judged as the gate judges stored results (verdicts.js,
   outcomes.js and reached.js); all else is told as a ratio. The address holds the whole state.
   This is the form above and what it loads; the table is compare-table.js. */
(function () {
  "use strict";

  var columns = window.KERNL_COLUMNS;
  var address = window.KERNL_ADDRESS;
  var page = window.KERNL_PAGE;
  var table = window.KERNL_COMPARE_TABLE;
  var told = window.KERNL_COMPARED;
  var reached = window.KERNL_REACHED;
  var form = document.getElementById("compare");
  var SIDES = ["base", "head"];
  var OURS = "kernl";
  var SHOWN = ["kernels", "models", "codegen"];
  var all = null; /* commits and machines */
  var asked = 0;

  function by(id) {
    return document.getElementById(id);
  }

  function field(side, name) {
    return by(side + "-" + name);
  }

  function machine(side) {
    return all.machines.filter(function (one) {
      return one.folder === field(side, "machine").value;
    })[0];
  }

  function suites() {
    var show = by("show").value;
    return show === "codegen" ? ["codegen"] : ["kernels", "models"];
  }

  function shortName(commit) {
    return all.commits[commit][0].slice(0, 12);
  }

  /** The commits that a machine measured of what is shown, newest first. */
  function commitsOf(side) {
    var found = {};
    suites().forEach(function (suite) {
      (machine(side).measured[suite] || []).forEach(function (commit) {
        found[commit] = true;
      });
    });
    return Object.keys(found).map(Number).sort(function (a, b) {
      return b - a;
    });
  }

  /** Of some commits those that measured just what is shown; all where none did. */
  function shownBy(side, commits) {
    var measured = machine(side).measured[by("show").value] || [];
    var own = commits.filter(function (commit) {
      return measured.indexOf(commit) >= 0;
    });
    return own.length ? own : commits;
  }

  function machinesNow() {
    return all.machines.filter(function (one) {
      return suites().some(function (suite) {
        return (one.measured[suite] || []).length;
      });
    });
  }

  function offerCommits(side, wanted) {
    var found = commitsOf(side);
    columns.offer(
      field(side, "commit"),
      found.map(function (commit) {
        return [shortName(commit), columns.commitLabel(all, commit)];
      }),
      wanted
    );
    return found;
  }

  function say(words) {
    by("said").textContent = words;
  }

  function remember() {
    var kept = {};
    SIDES.forEach(function (side) {
      kept[side] = ["machine", "commit", "implementation"].map(function (name) {
        return field(side, name).value;
      }).join("/");
    });
    kept.show = by("show").value === "kernels" ? "" : by("show").value;
    kept.words = by("words").value;
    kept.verdict = by("verdict").value;
    kept.order = table.order();
    address.rememberAll(kept);
  }

  function explain(gated, judged) {
    var about = by("about-verdicts");
    var machines = SIDES.map(function (side) {
      return machine(side).name;
    });
    about.textContent = "";
    judged.blockers.forEach(function (words) {
      about.appendChild(columns.element("p", words, "notice"));
    });
    judged.notes.forEach(function (words) {
      about.appendChild(columns.element("p", words + ".", "about"));
    });
    var text = columns.element("p", "", "about");
    if (gated) {
      text.textContent =
        "Verdicts are the gate's, by what is stored of both commits and the files between them: each " +
        "side comes from processes of its own, so what differs from process to process may look " +
        "like a change. The same in a terminal: ";
      text.appendChild(
        columns.element(
          "code",
          "python -m benchmarks.gate --machine " + machines[0] + " " +
            field("base", "commit").value + " " + field("head", "commit").value
        )
      );
    } else {
      text.textContent =
        machines[0] !== machines[1]
          ? "Two machines: ratios are told, and no verdict, as what differs may be the machine."
          : "Two implementations, or one that the gate does not judge: a tie is within 2 %; the " +
            "interval is what both 99 % intervals allow.";
    }
    about.appendChild(text);
  }

  function compare(wantedVerdict) {
    var turn = (asked += 1);
    var show = by("show").value;
    var names = suites();
    var implementations = SIDES.map(function (side) {
      return field(side, "implementation").value || OURS;
    });
    var commits = SIDES.map(function (side) {
      return commitsOf(side).filter(function (commit) {
        return shortName(commit) === field(side, "commit").value;
      })[0];
    });
    if (commits[0] === undefined || commits[1] === undefined) {
      table.show([]);
      say("Nothing was measured of this: choose another machine.");
      return;
    }
    var gated =
      machine("base") === machine("head") &&
      commits[0] !== commits[1] &&
      (show === "codegen" || (implementations[0] === OURS && implementations[1] === OURS));
    var here = names.filter(function (suite) {
      return SIDES.some(function (side, at) {
        return (machine(side).measured[suite] || []).indexOf(commits[at]) >= 0;
      });
    });
    var files = [];
    here.forEach(function (suite) {
      files.push("points-" + suite);
      SIDES.forEach(function (side, at) {
        var has = (machine(side).measured[suite] || []).indexOf(commits[at]) >= 0;
        files.push(has ? "at/" + machine(side).folder + "/" + suite + "-" + commits[at] : "");
      });
    });
    var noise = gated && show !== "codegen" ? "noise/" + machine("base").folder : "";
    var besides = noise ? ["code", noise] : [];
    var wanted = files.concat(besides).filter(Boolean);
    say("Loading…");
    columns.loadAll(
      wanted,
      function (values) {
        if (turn !== asked) {
          return;
        }
        var at = {};
        wanted.forEach(function (name, place) {
          at[name] = values[place];
        });
        var rows = [];
        here.forEach(function (suite, place) {
          var points = at[files[3 * place]];
          var sides = [1, 2].map(function (side) {
            var name = files[3 * place + side];
            return name ? told.table(at[name], points) : new Map();
          });
          rows = rows.concat(told.compared(suite, points, sides, implementations, gated));
        });
        table.tellMachines(
          [1, 2].map(function (side) {
            return here
              .map(function (_, place) {
                return at[files[3 * place + side]];
              })
              .filter(Boolean);
          })
        );
        var known = reached.knownOf(at.code || {}, at[noise], commits[0], commits[1]);
        var judged = gated ? told.judge(rows, here, known) : { blockers: [], notes: [] };
        rows.forEach(function (one, place) {
          one.place = place;
          if (!one.said) {
            one.said = told.withoutNumber(one.base, one.head);
          }
        });
        table.offerVerdicts(rows, wantedVerdict);
        explain(gated, judged);
        say("");
        table.show(rows);
        remember();
      },
      function (words) {
        table.show([]);
        say(words + ". Build the site again.");
      }
    );
  }

  function offerImplementations(side, wanted) {
    var names = all.implementations[by("show").value] || [];
    columns.offer(
      field(side, "implementation"),
      names.map(function (name) {
        return [name, name];
      }),
      names.indexOf(wanted) >= 0 ? wanted : OURS
    );
    field(side, "implementation").closest("label").hidden = !names.length;
  }

  /** Fills the form from the address; what it does not say is the newest two commits. */
  function begin() {
    var kept = address.state();
    var show = kept.get("show");
    by("show").value = SHOWN.indexOf(show) >= 0 ? show : "kernels";
    if (!machinesNow().length) {
      by("show").value = "codegen";
    }
    by("words").value = address.words("words");
    table.setOrder(told.isOrder(kept.get("order") || "") ? kept.get("order") : "");
    SIDES.forEach(function (side) {
      var wanted = (kept.get(side) || "").split("/");
      var most = machinesNow().slice().sort(function (a, b) {
        return count(b) - count(a);
      });
      columns.offer(
        field(side, "machine"),
        most.map(function (one) {
          return [one.folder, one.name];
        }),
        wanted[0]
      );
      if (!machine(side)) {
        return;
      }
      var found = offerCommits(side, wanted[1]);
      if (!wanted[1] && found.length) {
        var own = shownBy(side, found);
        field(side, "commit").value = shortName(own[side === "base" && own.length > 1 ? 1 : 0]);
      }
      offerImplementations(side, wanted[2]);
    });
    if (machine("base")) {
      compare(kept.get("verdict") || "");
    } else {
      say("Nothing was measured yet: run make bench, then build this site again.");
    }
  }

  function count(one) {
    return suites().reduce(function (sum, suite) {
      return sum + (one.measured[suite] || []).length;
    }, 0);
  }

  function listen() {
    SIDES.forEach(function (side) {
      field(side, "machine").addEventListener("change", function () {
        offerCommits(side, field(side, "commit").value);
        compare("");
      });
      ["commit", "implementation"].forEach(function (name) {
        field(side, name).addEventListener("change", function () {
          compare("");
        });
      });
    });
    by("show").addEventListener("change", function () {
      remember();
      SIDES.forEach(function (side) {
        var own = machine(side) ? shownBy(side, commitsOf(side)).map(shortName) : [];
        if (own.indexOf(field(side, "commit").value) < 0) {
          address.remember(side, "");
        }
      });
      begin();
    });
    by("swap").addEventListener("click", function () {
      var kept = address.state();
      var base = kept.get("base");
      address.remember("base", kept.get("head"));
      address.remember("head", base);
      begin();
    });
    by("words").maxLength = address.LONGEST;
    by("words").addEventListener("input", function () {
      table.fill();
      remember();
    });
    by("verdict").addEventListener("change", function () {
      table.fill();
      remember();
    });
    by("csv").addEventListener("click", function () {
      page.download("kernl-compare", [told.HEADINGS].concat(table.shown().map(told.texts)));
    });
    page.offerParquet(by("csv"), "kernl-compare", function () {
      return told.downloaded(table.shown());
    });
    Array.prototype.forEach.call(
      by("compared").tHead.querySelectorAll("[data-order]"),
      function (heading) {
        var button = columns.element("button", heading.textContent, "sort");
        button.type = "button";
        heading.textContent = "";
        heading.appendChild(button);
        button.addEventListener("click", function () {
          var name = heading.dataset.order;
          table.setOrder(table.order() === name ? name + "-" : name);
          table.fill();
          remember();
        });
      }
    );
    window.addEventListener("hashchange", begin);
    form.addEventListener("submit", function (event) {
      event.preventDefault();
    });
  }

  columns.loadAll(
    ["commits"],
    function (values) {
      all = values[0];
      form.hidden = false;
      listen();
      begin();
    },
    say
  );
})();
