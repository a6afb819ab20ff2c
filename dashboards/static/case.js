/* The page Case: one case on one machine, all that is known of it. The address says which. */
(function () {
  "use strict";

  var columns = window.KERNL_COLUMNS;
  var page = window.KERNL_PAGE;
  var drawn = window.KERNL_SERIES;
  var times = window.KERNL_TIMES;
  var form = document.getElementById("which");
  var OURS = "kernl";
  var BASELINE = "eager";
  var PARTS = ["kernl_graphs_only", "kernl_rewrite_only"];
  var SUITES = { kernels: "operators", models: "models" };
  var all = null;
  var points = null;
  var now = null; /* what is drawn, as trend-times.js takes it */
  var other = null; /* the same case on another machine, or null */
  var asked = 0;
  var how = window.KERNL_HOW.offer(document.getElementById("trend"), draw);
  var also = window.KERNL_ALSO.offer(how.row, findOther);

  function by(id) {
    return document.getElementById(id);
  }

  function say(words) {
    by("said").textContent = words;
  }

  function chosen(name) {
    return by(name).value;
  }

  function machine() {
    return all.machines.filter(function (one) {
      return one.folder === chosen("machine");
    })[0];
  }

  function remember() {
    ["machine", "suite", "of", "case"].forEach(function (name) {
      page.remember(name, chosen(name));
    });
  }

  /* ---- choosing ---- */

  function offerMachines(wanted) {
    var suite = chosen("suite");
    var some = all.machines.filter(function (one) {
      return (one.measured[suite] || []).length;
    });
    some.sort(function (a, b) {
      return b.measured[suite].length - a.measured[suite].length;
    });
    columns.offer(
      by("machine"),
      some.map(function (one) {
        return [one.folder, one.name];
      }),
      wanted
    );
  }

  function begin() {
    var kept = page.state();
    var suite = kept.get("suite");
    by("suite").value = SUITES[suite] ? suite : "kernels";
    offerMachines(kept.get("machine"));
    if (!machine()) {
      say("No times yet: run make bench on a machine with an NVIDIA GPU, then build this site again.");
      return;
    }
    columns.load(
      "points-" + chosen("suite"),
      function (value) {
        points = value;
        columns.offer(
          by("of"),
          points.names.map(function (name) {
            return [name, name];
          }),
          kept.get("of")
        );
        list(kept.get("case"));
      },
      say
    );
  }

  function folder() {
    return "of/" + machine().folder + "/" + chosen("suite") + "-" + points.slugs[by("of").selectedIndex];
  }

  /** The cases of what is chosen, then the one that is wanted, or the first. */
  function list(wanted) {
    var turn = (asked += 1);
    say("Loading…");
    columns.load(
      folder(),
      function (listed) {
        if (turn !== asked) {
          return;
        }
        columns.offer(
          by("case"),
          listed.cases.map(function (name) {
            return [name, name];
          }),
          wanted
        );
        if (wanted && by("case").value !== wanted) {
          say("There is no case " + wanted + " of " + chosen("of") + " on this machine.");
        } else {
          say("");
        }
        open(listed);
      },
      function () {
        say(chosen("of") + " was not measured on this machine.");
        by("case").textContent = "";
        by("known").hidden = true;
      }
    );
  }

  function open(listed) {
    var turn = (asked += 1);
    var place = by("case").selectedIndex;
    var part = Math.floor(place / listed.size);
    columns.load(
      folder() + "-" + part,
      function (series) {
        if (turn === asked) {
          show(series, place - part * listed.size, listed.moves[place]);
          remember();
        }
      },
      say
    );
  }

  /* ---- showing ---- */

  function draw() {
    if (!now) {
      return;
    }
    var figure = drawn.trend(now, all, Object.assign(how.now(all), { also: other }));
    how.follow(figure, all);
    by("trend-figure").hidden = !figure.numbers.length;
    drawn.draw(by("trend"), figure);
    by("samples-figure").hidden = !drawn.draw(by("samples"), drawn.samples(now));
  }

  /** Draws what is chosen, with the same case on another machine where one is wanted. */
  function findOther() {
    var turn = asked;
    var which = {
      machine: chosen("machine"), suite: now.suite, slug: points.slugs[by("of").selectedIndex],
      case: chosen("case"),
    };
    also.find(all, which, function (found) {
      if (turn === asked) {
        other = found;
        draw();
      }
    });
  }

  function newest(variant) {
    var last = now.series.last[now.at][variant];
    var count = now.series.commits.length;
    var found = { value: NaN, low: NaN, high: NaN };
    if (!last || last.status !== "ok") {
      return found;
    }
    var at = (now.at * now.series.variants.length + variant) * count +
      now.series.commits.indexOf(last.commit);
    Object.keys(found).forEach(function (key) {
      found[key] = times.unpacked(now.series)[key][at];
    });
    return found;
  }

  function cell(text, number) {
    return columns.element("td", text, number ? "number" : "");
  }

  function fillTable() {
    var body = by("implementations").tBodies[0];
    var ours = newest(now.series.variants.indexOf(OURS)).value;
    var unit = columns.units[now.suite][1];
    body.textContent = "";
    now.series.variants.forEach(function (name, variant) {
      var last = now.series.last[now.at][variant];
      if (!last) {
        return;
      }
      var time = newest(variant);
      var row = document.createElement("tr");
      var head = columns.element("th", name);
      head.scope = "row";
      row.appendChild(head);
      row.appendChild(cell(columns.amount(time.value, now.suite) + (isFinite(time.value) ? " " + unit : ""), true));
      row.appendChild(
        cell(isFinite(time.low) ? times.between(time.low, time.high, now.suite) : "", true)
      );
      row.appendChild(cell(isFinite(time.value / ours) ? (time.value / ours).toFixed(2) + "×" : "–", true));
      row.appendChild(cell(last.error === null ? "–" : last.error.toExponential(1), true));
      row.appendChild(cell(String(last.samples.length), true));
      row.appendChild(cell(last.clock === null ? "–" : last.clock + " MHz", true));
      row.appendChild(cell(last.status + (last.reason ? ": " + last.reason : "")));
      row.appendChild(cell(all.commits[last.commit][0].slice(0, 8) + " " + all.commits[last.commit][1]));
      row.appendChild(cell(last.version));
      body.appendChild(row);
    });
  }

  function fillFacts() {
    var list = by("run-facts");
    var variant = now.series.variants.indexOf(OURS);
    var last = now.series.last[now.at][variant] || now.series.last[now.at].filter(Boolean)[0];
    list.textContent = "";
    if (!last) {
      return;
    }
    var facts = now.series.runs[last.run] || {};
    Object.keys(facts).forEach(function (key) {
      var pair = document.createElement("div");
      pair.appendChild(columns.element("dt", key.replace(/_/g, " ")));
      pair.appendChild(columns.element("dd", facts[key]));
      list.appendChild(pair);
    });
    var commit = all.commits[last.commit][0];
    var file = machine().name + "/" + commit.slice(0, 8) + "-worktree.json";
    var raw = document.body.dataset.raw;
    var stored = columns.element(raw ? "a" : "code", file);
    if (raw) {
      stored.href = raw + encodeURI(file);
    }
    by("raw").textContent = "Stored in ";
    by("raw").appendChild(stored);
    by("raw").appendChild(document.createTextNode(", with a journal beside it."));
    var again =
      now.suite === "models"
        ? "python -m benchmarks.measure.models " + chosen("of") + " --match '" + chosen("case") + "'"
        : "python -m benchmarks.measure " + chosen("of") + " --match '^" + chosen("case").replace(/\./g, "\\.") + "$'";
    by("again").textContent = "git checkout " + commit.slice(0, 12) + "\n" + again;
  }

  function show(series, at, moves) {
    var suite = chosen("suite");
    now = {
      series: series, at: at, suite: suite, moves: moves, changes: machine().changes[suite],
      machine: machine().name,
      title: chosen("of") + " " + chosen("case") + " on " + machine().name,
    };
    by("known").hidden = false;
    by("title").textContent = chosen("of") + " " + chosen("case");
    document.title = chosen("of") + " " + chosen("case") + " · kernl benchmarks";
    var href = points.hrefs[by("of").selectedIndex];
    by("page-of").href = href ? href + "#case=" + encodeURIComponent(chosen("case")) : "index.html";
    by("page-of").textContent = "All cases of " + chosen("of");
    var ours = newest(series.variants.indexOf(OURS)).value;
    var eager = newest(series.variants.indexOf(BASELINE)).value;
    var best = Infinity;
    var named = "";
    series.variants.forEach(function (name, variant) {
      var value = newest(variant).value;
      if (name !== OURS && PARTS.indexOf(name) < 0 && value < best) {
        best = value;
        named = name;
      }
    });
    var unit = columns.units[now.suite][1];
    by("ours").textContent = isFinite(ours) ? columns.amount(ours, now.suite) + " " + unit : "no time";
    by("over-eager").textContent = isFinite(eager / ours) ? (eager / ours).toFixed(2) + "×" : "–";
    by("over-best").textContent = isFinite(best / ours) ? (best / ours).toFixed(2) + "×" : "–";
    by("best-name").textContent = named;
    fillTable();
    fillFacts();
    findOther();
  }

  function listen() {
    by("suite").addEventListener("change", function () {
      page.remember("suite", chosen("suite"));
      page.remember("of", "");
      page.remember("case", "");
      begin();
    });
    by("machine").addEventListener("change", function () {
      list(chosen("case"));
    });
    by("of").addEventListener("change", function () {
      list("");
    });
    by("case").addEventListener("change", function () {
      columns.load(folder(), open, say);
    });
    window.addEventListener("hashchange", begin);
    page.onTheme(draw);
    form.addEventListener("submit", function (event) {
      event.preventDefault();
    });
  }

  columns.load(
    "commits",
    function (value) {
      all = value;
      form.hidden = false;
      listen();
      begin();
    },
    say
  );
})();
