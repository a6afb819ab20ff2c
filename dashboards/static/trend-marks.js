/* What stands along the x axis of a figure of commits: their places, evenly or by date, and the
   uprights and bands at them. An axis is {numbers, at, layout}: the commits that are shown, and the
   place of each of them. */
(function () {
  "use strict";

  var page = window.KERNL_PAGE;
  var MOST_TICKS = 6;
  /** Pixels that a letter of a label takes, and those between two labels. */
  var LETTER = 6.5;
  var GAP = 10;

  /** Text that Plotly takes for text: it reads some markup. */
  function plain(text) {
    return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }

  function ids(all, number) {
    return all.commits[number][0].slice(0, 8);
  }

  function evenly(numbers, all) {
    var step = Math.max(1, Math.ceil(numbers.length / MOST_TICKS));
    var ticks = [];
    for (var tick = numbers.length - 1; tick >= 0; tick -= step) {
      ticks.unshift(tick);
    }
    return {
      numbers: numbers,
      at: numbers.map(function (_, place) { return place; }),
      layout: {
        title: { text: "commit" }, tickvals: ticks, range: [-0.4, numbers.length - 0.6],
        ticktext: ticks.map(function (place) { return ids(all, numbers[place]); }),
        showgrid: false, zeroline: false,
      },
    };
  }

  function byDate(numbers, all, width) {
    var known = numbers.map(function (number) { return all.commits[number][3] * 1000; });
    var first = Math.min.apply(null, known.filter(Boolean));
    /* One whose date is unknown stands with the first that has one. */
    var at = known.map(function (moment) { return moment || first; });
    var last = at[at.length - 1];
    var room = Math.max(0.03 * (last - first), 60000);
    return {
      numbers: numbers,
      at: at,
      layout: {
        title: { text: "date of the commit (UTC)" }, type: "date", range: [first - room, last + room],
        nticks: Math.min(MOST_TICKS, Math.floor(width / 110)), showgrid: false, zeroline: false,
      },
    };
  }

  /** The axis of some commits, oldest first; `how` says how, and how wide it is. */
  function axis(numbers, all, how) {
    var dated = numbers.some(function (number) { return all.commits[number][3]; });
    return how.x === "date" && dated ? byDate(numbers, all, how.width) : evenly(numbers, all);
  }

  /** Where a commit's number lies; between its neighbours where it is not shown, null outside. */
  function where(axis, number) {
    var next = axis.numbers.findIndex(function (one) { return one >= number; });
    if (next >= 0 && axis.numbers[next] === number) {
      return axis.at[next];
    }
    return next > 0 ? (axis.at[next - 1] + axis.at[next]) / 2 : null;
  }

  /** How far right a place is, from 0 to 1. */
  function share(axis, at) {
    var range = axis.layout.range;
    return (at - range[0]) / (range[1] - range[0]);
  }

  function upright(at, line) {
    return { type: "line", x0: at, x1: at, y0: 0, y1: 1, yref: "paper", line: line };
  }

  /** Dotted uprights between two commits where the libraries or the driver changed. */
  function changes(axis, some) {
    var found = { shapes: [], annotations: [] };
    (some || []).forEach(function (change) {
      var next = axis.numbers.findIndex(function (one) { return one >= change[0]; });
      if (next <= 0) {
        return;
      }
      var at = (axis.at[next - 1] + axis.at[next]) / 2;
      found.shapes.push(upright(at, { dash: "dot", width: 1 }));
      found.annotations.push({
        x: at, y: 1, yref: "paper", yanchor: "bottom", showarrow: false, text: plain(change[1]),
        xanchor: share(axis, at) > 0.5 ? "right" : "left",
      });
    });
    return found;
  }

  /** Thin uprights at releases. Where many stand close, the newest keep their names. */
  function releases(axis, some, width) {
    var found = { shapes: [], annotations: [] };
    var free = Infinity;
    (some || []).slice().reverse().forEach(function (release) {
      var at = where(axis, release[1]);
      if (at === null) {
        return;
      }
      found.shapes.push(Object.assign(
        upright(at, { width: 1, color: page.theme().muted }), { name: release[0], layer: "below" }
      ));
      var middle = share(axis, at) * width;
      var half = (release[0].length * LETTER) / 2;
      if (middle + half + GAP <= free) {
        found.annotations.push({
          x: at, y: 1, yref: "paper", yanchor: "bottom", xanchor: "center", showarrow: false,
          text: plain(release[0]), name: "release",
        });
        free = middle - half;
      }
    });
    return found;
  }

  /** Pale bands over the steps, each [the last commit before it, the first after it, words]. */
  function steps(axis, some) {
    return some.map(function (step) {
      return {
        type: "rect", x0: where(axis, step[0]), x1: where(axis, step[1]), y0: 0, y1: 1, yref: "paper",
        layer: "below", line: { width: 0 }, fillcolor: page.theme().roles.moved + "24", name: "step",
      };
    });
  }

  /** All of these as parts of a layout; words of changes stand above the names of releases. */
  function along(axis, marks) {
    var changed = changes(axis, marks.changes);
    var released = releases(axis, marks.releases, marks.width);
    var rows = 0;
    if (released.annotations.length) {
      rows += 1;
      changed.annotations.forEach(function (note) { note.yshift = 15; });
    }
    if (changed.annotations.length) {
      rows += 1;
    }
    return {
      shapes: changed.shapes.concat(released.shapes, steps(axis, marks.steps)),
      annotations: changed.annotations.concat(released.annotations),
      legend: rows ? { y: 1.04 + 0.06 * rows } : {},
      margin: rows ? { t: 46 + 18 * rows } : {},
    };
  }

  window.KERNL_MARKS = { axis: axis, where: where, along: along, plain: plain };
})();
