/* What is known of one case's times over commits, as numbers and in words. `now` is what is shown:
   {series, at, suite, moves, changes, machine, title}, of which `series` is a file of data/of,
   `moves` where the case moved, and `changes` where the machine's libraries did; `all` is
   data/commits.js; `how` is what trend-choices.js offers: {as, x, from, width, also}. */
(function () {
  "use strict";

  var columns = window.KERNL_COLUMNS;
  var OURS = "kernl";
  var BASELINE = "eager";

  function unpacked(series) {
    if (!series.columns) {
      series.columns = {
        value: columns.unpack(series.value),
        low: columns.unpack(series.low),
        high: columns.unpack(series.high),
      };
    }
    return series.columns;
  }

  function between(low, high, suite) {
    return columns.amount(low, suite) + " to " + columns.amount(high, suite);
  }

  /** The times of an implementation by a commit's number: {value, low, high}, or null. */
  function times(now, name) {
    var of = unpacked(now.series);
    var count = now.series.commits.length;
    var first = (now.at * now.series.variants.length + now.series.variants.indexOf(name)) * count;
    var found = {};
    now.series.commits.forEach(function (number, place) {
      if (isFinite(of.value[first + place])) {
        found[number] = {
          value: of.value[first + place], low: of.low[first + place], high: of.high[first + place],
        };
      }
    });
    return found;
  }

  function numbersOf(some) {
    return Object.keys(some).map(Number).sort(function (a, b) { return a - b; });
  }

  /** The time that others are held against: at a commit, or the first after it, or the last. */
  function held(some, from) {
    var numbers = numbersOf(some);
    var later = numbers.filter(function (number) { return number >= from; });
    return later.length ? later[0] : numbers[numbers.length - 1];
  }

  function told(one, suite) {
    var ends = isFinite(one.low) ? " (" + between(one.low, one.high, suite) + ")" : " (no interval)";
    return columns.amount(one.value, suite) + " " + columns.units[suite][1] + ends;
  }

  /** What a figure draws of one time: {value, low, high} in the figure's unit, and words. */
  function shownAs(line, number, how) {
    var one = line.times[number];
    if (!one) {
      return { value: NaN, low: NaN, high: NaN, said: "not measured" };
    }
    var words = told(one, line.suite);
    if (how.as === "eager") {
      var base = line.eager[number];
      var ratio = base ? base.value / one.value : NaN;
      var said = base ? ratio.toFixed(3) + "× eager, " : "no time of eager here, ";
      return { value: ratio, low: NaN, high: NaN, said: said + words };
    }
    var unit = columns.units[line.suite][0];
    if (how.as === "relative") {
      unit = 100 / line.times[line.held].value;
      words = (unit * one.value).toFixed(1) + " % of that at " + line.heldId + ", " + words;
    }
    return { value: unit * one.value, low: unit * one.low, high: unit * one.high, said: words };
  }

  /** The lines of a figure: {name, role, place, times, …} for each implementation of each machine. */
  function linesOf(now, all, how) {
    var lines = [];
    [now].concat(how.also ? [how.also] : []).forEach(function (one, machine) {
      var eager = one.series.variants.indexOf(BASELINE) < 0 ? {} : times(one, BASELINE);
      one.series.variants.forEach(function (role, place) {
        var some = times(one, role);
        if (numbersOf(some).length) {
          lines.push({
            name: role + (machine ? " on " + one.machine : ""), role: role, place: place,
            machine: machine, suite: one.suite, times: some, eager: eager,
          });
        }
      });
    });
    return lines;
  }

  /** The commits that timed any of some lines, oldest first. */
  function commitsOf(lines) {
    var seen = {};
    lines.forEach(function (line) {
      Object.assign(seen, line.times);
    });
    return numbersOf(seen);
  }

  /** All that a figure or its table shows: {lines, numbers, from}. */
  function contents(now, all, how) {
    var lines = linesOf(now, all, how);
    var numbers = commitsOf(lines);
    var from = numbers.indexOf(how.from) < 0 ? numbers[0] : how.from;
    lines.forEach(function (line) {
      line.held = held(line.times, from);
      line.heldId = all.commits[line.held][0].slice(0, 8);
    });
    if (how.as === "eager") {
      lines = lines.filter(function (line) {
        return line.role !== BASELINE && numbers.some(function (number) {
          return line.times[number] && line.eager[number];
        });
      });
    }
    return { lines: lines, numbers: numbers, from: from };
  }

  /** Where kernl's time moved: {before, at, words}; `before` is the commit that timed it before. */
  function stepsOf(now) {
    var ours = now.series.variants.indexOf(OURS) < 0 ? {} : times(now, OURS);
    var numbers = numbersOf(ours);
    return (now.moves || [])
      .filter(function (move) { return ours[move[0]]; })
      .map(function (move) {
        return { before: numbers[numbers.indexOf(move[0]) - 1], at: move[0], words: move[1] };
      });
  }

  function stepWords(step, all) {
    function id(number) {
      return all.commits[number][0].slice(0, 8);
    }
    return (step.before === undefined ? "" : "after " + id(step.before) + ", ") +
      "by " + id(step.at) + ": " + step.words;
  }

  /** The figure's numbers: a row of texts for each commit, the first of them headings. */
  function rows(now, all, how) {
    var shown = contents(now, all, how);
    var steps = stepsOf(now);
    var heads = shown.lines.map(function (line) { return line.name; });
    return [["Commit"].concat(heads, steps.length ? ["Moved"] : [])].concat(
      shown.numbers.map(function (number) {
        var texts = shown.lines.map(function (line) { return shownAs(line, number, how).said; });
        var here = steps.filter(function (step) { return step.at === number; });
        var moved = here.map(function (step) { return stepWords(step, all); }).join("; ");
        return [columns.commitLabel(all, number)].concat(texts, steps.length ? [moved] : []);
      })
    );
  }

  window.KERNL_TIMES = {
    OURS: OURS,
    unpacked: unpacked,
    between: between,
    contents: contents,
    shownAs: shownAs,
    stepsOf: stepsOf,
    stepWords: stepWords,
    rows: rows,
  };
})();
