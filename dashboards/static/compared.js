/* What the page Compare says of each case: rows of two files of data/at, judged or told, in order. */
(function () {
  "use strict";

  var columns = window.KERNL_COLUMNS;
  var outcomes = window.KERNL_OUTCOMES;
  var verdicts = window.KERNL_VERDICTS;
  var reached = window.KERNL_REACHED;
  var STATUSES = ["ok", "failed", "skipped"];
  var CONTROL = "eager";
  var OURS = "kernl";
  var TIE = 0.02;
  var ORDER = [
    "failed", "regressed", "missing", "unstable", "undecided", "slower", "improved", "faster",
    "fixed", "new", "version", "failing", "skipped", "tie", "pass", "equal",
  ];

  /* ---- one commit's file as rows by point ---- */

  function table(file, points) {
    var found = new Map();
    var point = columns.unpack(file.point);
    var status = columns.unpack(file.status);
    var value = columns.unpack(file.value);
    var print = columns.unpack(file.print);
    var version = columns.unpack(file.version);
    var reason = columns.unpack(file.reason);
    var low = file.low ? columns.unpack(file.low) : null;
    var high = file.high ? columns.unpack(file.high) : null;
    for (var place = 0; place < point.length; place += 1) {
      found.set(point[place], {
        status: STATUSES[status[place]],
        value: value[place],
        low: low ? low[place] : NaN,
        high: high ? high[place] : NaN,
        run: file.prints[print[place]],
        version: file.versions[version[place]],
        reason: file.reasons[reason[place]],
      });
    }
    if (file.evidence) {
      var names = ["count", "mean", "variance", "spread"];
      names = names.concat(["residualMean", "residualVariance", "residualSpread"]);
      var of = {};
      names.forEach(function (name) {
        of[name] = columns.unpack(file.evidence[name]);
      });
      columns.unpack(file.evidence.point).forEach(function (number, place) {
        var evidence = {};
        names.forEach(function (name) {
          evidence[name] = of[name][place];
        });
        found.get(number).evidence = evidence;
      });
    }
    return found;
  }

  /* ---- what is said of a case ---- */

  function plainRatio(base, head, lowerIsBetter) {
    var ratio = head.value / base.value;
    var worse = lowerIsBetter ? ratio : 1 / ratio;
    var word = worse > 1 + TIE ? "slower" : worse < 1 / (1 + TIE) ? "faster" : "tie";
    return {
      ratio: ratio,
      low: head.low / base.high,
      high: head.high / base.low,
      verdict: word,
      reason: word === "tie" ? "within 2 %" : "",
    };
  }

  function withoutNumber(base, head) {
    var told = [base, head].map(function (row) {
      return row ? (row.status === "ok" ? "was measured" : row.reason || row.status) : "no result";
    });
    return { ratio: NaN, low: NaN, high: NaN, verdict: "missing", reason: told.join(" / ") };
  }

  /** Judges what both sides have, and says what is to be known of that and what stands against it.
      `known.reached` and `known.noise` tell of a case what reached.js asks for. */
  function judge(pairs, suiteNames, known) {
    var family = [];
    pairs.forEach(function (one) {
      var settled = outcomes.settled(one.suite, one.base, one.head);
      if (settled) {
        one.said = {
          ratio: NaN, low: NaN, high: NaN, verdict: settled.outcome, reason: settled.reason,
        };
      } else if (one.suite === "codegen") {
        var lower = outcomes.lowerIsBetter(one.metric);
        one.said = verdicts.counts(one.base.value, one.head.value, lower);
      } else {
        one.test = verdicts.test(one.base.evidence, one.head.evidence);
        family.push(one);
      }
    });
    var decided = verdicts.decide(family.map(function (one) {
      return one.test;
    }));
    family.forEach(function (one, place) {
      one.said = decided[place];
      one.drift = outcomes.dividedOut(one.test, one.base.evidence, one.head.evidence);
    });
    var notes = reached.judge(family, known);
    var blockers = suiteNames.map(function (suite) {
      var drift = outcomes.controlDrift(
        family
          .filter(function (one) {
            return one.suite === suite && known.reached(one);
          })
          .map(function (one) {
            return {
              ratio: one.said.ratio,
              driftRemoved: one.test.driftRemoved,
              eagerBase: one.eager ? good(one.eager[0]) : NaN,
              eagerHead: one.eager ? good(one.eager[1]) : NaN,
            };
          })
      );
      if (!drift.blocks) {
        return "";
      }
      reached.withoutTimesOf(suite, family);
      return "eager of " + suite + ", whose code did not change, moved by " +
        columns.percent(drift.ratio) + " (median of " + drift.cases +
        " cases): the machine changed, so no slower time counts; measure both again";
    });
    return { notes: notes, blockers: blockers.filter(Boolean) };
  }

  function good(row) {
    return row && row.status === "ok" ? row.value : NaN;
  }

  /** The cases that either side has, told one beside the other. */
  function compared(suite, points, tables, implementations, gated) {
    var of = columns.unpack(points.of);
    var metrics = points.metrics.length;
    var variants = points.variants.length;
    var found = [];
    var pairs = [];
    if (suite === "codegen") {
      for (var number = 0; number < variants * metrics; number += 1) {
        pairs.push([number, number]);
      }
    } else {
      var places = implementations.map(function (name) {
        return points.variants.indexOf(name);
      });
      if (places[0] >= 0 && places[1] >= 0) {
        pairs.push(places);
      }
    }
    var control = points.variants.indexOf(CONTROL);
    points.cases.forEach(function (name, at) {
      pairs.forEach(function (pair) {
        var first = at * variants * metrics;
        var base = tables[0].get(first + pair[0]) || null;
        var head = tables[1].get(first + pair[1]) || null;
        if (!base && !head) {
          return;
        }
        var one = {
          suite: suite, name: points.names[of[at]], href: points.hrefs[of[at]], case: name,
          metric: points.metrics[pair[0] % metrics], base: base, head: head,
          variant: suite === "codegen" ? points.variants[Math.floor(pair[0] / metrics)] : "",
        };
        if (control >= 0 && suite !== "codegen") {
          one.eager = [tables[0].get(first + control), tables[1].get(first + control)];
        }
        if (gated && suite !== "codegen") {
          one.at = at;
          one.others = others(points.variants, function (place) {
            return [tables[0].get(first + place), tables[1].get(first + place)].map(good);
          });
        }
        if (!gated && suite !== "codegen") {
          var both = base && head && good(base) > 0 && good(head) > 0;
          one.said = both ? plainRatio(base, head, true) : withoutNumber(base, head);
        }
        found.push(one);
      });
    });
    return found;
  }

  /** How far what nobody changed moved, log of head over base by implementation. */
  function others(variants, timesOf) {
    var found = {};
    variants.forEach(function (name, place) {
      if (name.split("_")[0] !== OURS) {
        var move = Math.log(timesOf(place)[1] / timesOf(place)[0]);
        if (isFinite(move)) {
          found[name] = move;
        }
      }
    });
    return found;
  }

  function rank(one) {
    return ORDER.indexOf(one.said.verdict);
  }

  function worse(one) {
    var ratio = one.said.ratio;
    if (isNaN(ratio)) {
      return 0;
    }
    return outcomes.lowerIsBetter(one.metric) ? ratio : 1 / ratio;
  }

  function ratioOf(one) {
    return one.said.ratio;
  }

  var KEYS = {
    name: function (one) { return one.name; },
    case: function (one) { return one.case; },
    base: function (one) { return one.base ? good(one.base) : NaN; },
    head: function (one) { return one.head ? good(one.head) : NaN; },
    change: ratioOf,
    verdict: rank,
  };

  /** Whether an order names a column, such as case or change-. */
  function isOrder(words) {
    return Object.prototype.hasOwnProperty.call(KEYS, words.replace(/-$/, ""));
  }

  function order(list, chosenOrder) {
    if (!isOrder(chosenOrder)) {
      return list.sort(function (a, b) {
        var first = worse(a);
        var second = worse(b);
        return rank(a) - rank(b) || (first === second ? a.place - b.place : second > first ? 1 : -1);
      });
    }
    var key = KEYS[chosenOrder.replace(/-$/, "")];
    var sign = chosenOrder.slice(-1) === "-" ? -1 : 1;
    return list.sort(function (a, b) {
      var x = key(a);
      var y = key(b);
      if (typeof x === "number" && (isNaN(x) || isNaN(y))) {
        return isNaN(x) - isNaN(y) || a.place - b.place;
      }
      var by = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
      return sign * by || a.place - b.place;
    });
  }

  function hasInterval(said) {
    return isFinite(said.low) && isFinite(said.high) && said.low !== said.high;
  }

  function interval(one) {
    var said = one.said;
    return hasInterval(said) ? columns.percent(said.low) + " to " + columns.percent(said.high) : "";
  }

  var HEADINGS = [
    "operator or model", "case", "architecture and metric", "unit", "base", "head", "change",
    "99 % interval", "verdict", "why",
  ];
  var RATIOS = ["kernl", "drift"];
  var MEANS = {
    kernlBase: "kernl's mean on base", kernlHead: "kernl's mean on head", kernl: "kernl's change",
    eagerBase: "eager's mean on base", eagerHead: "eager's mean on head",
    drift: "eager's drift, divided out",
  };
  var PARTS = Object.keys(MEANS);
  HEADINGS = HEADINGS.concat(PARTS.map(function (part) {
    return MEANS[part];
  }));

  /** A part of what was divided out of a case as text; "" where nothing was. */
  function partText(one, part) {
    if (!one.drift) {
      return "";
    }
    return RATIOS.indexOf(part) >= 0
      ? columns.percent(one.drift[part])
      : columns.amount(one.drift[part], one.suite, one.metric);
  }

  /** What was divided out of a case, in lines; none where nothing was. */
  function driftLines(one) {
    var unit = (columns.units[one.suite] || ["", ""])[1];

    function moved(name) {
      var words = [partText(one, name + "Base"), "→", partText(one, name + "Head"), unit];
      return name + "'s mean " + words.join("\u00a0") + ": ";
    }

    function change(part) {
      return partText(one, part).replace(" ", "\u00a0");
    }

    return one.drift
      ? [
          moved("kernl") + change("kernl"),
          moved(CONTROL) + "drift " + change("drift") + " divided out",
        ]
      : [];
  }

  /** A row of the download as CSV. */
  function texts(one) {
    return [
      one.name, one.case, one.suite === "codegen" ? one.variant + " " + one.metric : "",
      (columns.units[one.suite] || ["", ""])[1], value(one.base, one), value(one.head, one),
      columns.percent(one.said.ratio), interval(one), one.said.verdict, why(one),
    ].concat(
      PARTS.map(function (part) {
        return partText(one, part);
      })
    );
  }

  /** The same rows as columns, with numbers in full: times in the unit, changes as ratios. */
  function downloaded(list) {
    var said = list.map(texts);

    function words(place) {
      var values = said.map(function (row) {
        return row[place];
      });
      return { name: HEADINGS[place], kind: "text", values: values };
    }

    function numbers(name, find) {
      var values = list.map(find).map(function (number) {
        return isNaN(number) ? null : number;
      });
      return { name: name, kind: "number", values: values };
    }

    function amount(side) {
      return numbers(side, function (one) {
        return one[side] ? good(one[side]) * (columns.units[one.suite] || [1])[0] : NaN;
      });
    }

    function end(name) {
      return numbers("99 % interval, " + name, function (one) {
        return hasInterval(one.said) ? one.said[name] : NaN;
      });
    }

    function ofDrift(part) {
      return numbers(MEANS[part] + (RATIOS.indexOf(part) >= 0 ? ", ratio" : ""), function (one) {
        var unit = RATIOS.indexOf(part) >= 0 ? 1 : (columns.units[one.suite] || [1])[0];
        return one.drift ? one.drift[part] * unit : NaN;
      });
    }

    return [0, 1, 2, 3].map(words).concat(
      [amount("base"), amount("head"), numbers("head over base", ratioOf), end("low"), end("high")],
      [8, 9].map(words),
      PARTS.map(ofDrift)
    );
  }

  function value(row, one) {
    return columns.amount(row ? good(row) : NaN, one.suite, one.metric);
  }

  function why(one) {
    var drift = one.test && one.test.driftRemoved && one.said.reason.indexOf("drift") < 0;
    return one.said.reason + (drift ? ", after eager's drift was divided out" : "");
  }

  window.KERNL_COMPARED = {
    ORDER: ORDER,
    HEADINGS: HEADINGS,
    table: table,
    judge: judge,
    compared: compared,
    withoutNumber: withoutNumber,
    isOrder: isOrder,
    order: order,
    ratioOf: ratioOf,
    interval: interval,
    driftLines: driftLines,
    texts: texts,
    downloaded: downloaded,
    value: value,
    why: why,
  };
})();
