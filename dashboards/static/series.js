/* Times of one case over commits, and its samples, as figures that Plotly takes; trend-times.js says what
   `now`, `all` and `how` are. */
(function () {
  "use strict";

  var columns = window.KERNL_COLUMNS;
  var marks = window.KERNL_MARKS;
  var page = window.KERNL_PAGE;
  var times = window.KERNL_TIMES;
  var plain = marks.plain;
  var shownAs = times.shownAs;

  /** With more commits than so many, intervals are bands and lines have no marks. */
  var BARS = 120;

  /** The one of a theme's dashes or symbols that an implementation has. */
  function own(kind, variant) {
    var some = page.theme()[kind];
    return some[variant % some.length];
  }

  function known(value) {
    return isFinite(value) ? value : null;
  }

  /** Rings around kernl's values where the case moved. */
  function rings(steps, shown, axis, all, how) {
    var ours = shown.lines.filter(function (line) { return line.role === times.OURS && !line.machine; })[0];
    var trace = {
      type: "scatter", mode: "markers", name: "moved", x: [], y: [], customdata: [],
      meta: { role: "moved" },
      marker: { size: 17, symbol: "circle-open", line: { width: 2.5 } },
      hovertemplate: "<b>moved</b>  %{customdata}<extra></extra>",
    };
    (ours ? steps : []).forEach(function (step) {
      var value = shownAs(ours, step.at, how).value;
      if (isFinite(value)) {
        trace.x.push(marks.where(axis, step.at));
        trace.y.push(value);
        trace.customdata.push(plain(times.stepWords(step, all)));
      }
    });
    return trace;
  }

  /** The intervals of a trace as a band around its line: bars of hundreds of commits are a thicket. */
  function band(trace) {
    var known = trace.y.map(function (_, at) { return at; }).filter(function (at) {
      return trace.y[at] !== null && trace.error_y.array[at] !== null && trace.error_y.arrayminus[at] !== null;
    });
    function edge(at, side) {
      return side > 0 ? trace.y[at] + trace.error_y.array[at] : trace.y[at] - trace.error_y.arrayminus[at];
    }
    var back = known.slice().reverse();
    return {
      type: "scatter", mode: "lines", name: trace.name, meta: trace.meta, showlegend: false,
      x: known.concat(back).map(function (at) { return trace.x[at]; }), hoverinfo: "skip", fill: "toself",
      y: known.map(function (at) { return edge(at, 1); }).concat(
        back.map(function (at) { return edge(at, -1); })
      ),
      line: { width: 0 },
    };
  }

  /** The trace of a line. Where two machines are shown, dashes tell them apart. */
  function traceOf(line, shown, axis, all, how) {
    var many = shown.numbers.length > BARS;
    var values = shown.numbers.map(function (number) { return shownAs(line, number, how); });
    var trace = {
      type: "scatter", mode: many ? "lines" : "lines+markers", name: plain(line.name), x: axis.at,
      y: values.map(function (one) { return known(one.value); }),
      text: shown.numbers.map(function (number) { return plain(columns.commitLabel(all, number)); }),
      customdata: values.map(function (one) { return plain(one.said); }),
      connectgaps: true, meta: { role: line.role, place: line.place },
      line: {
        width: 2.4,
        dash: how.also ? (line.machine ? "dash" : "solid") : own("dashes", line.place),
      },
      marker: { size: 7, symbol: own("symbols", line.place) },
      hovertemplate: "<b>%{fullData.name}</b>  %{customdata}<br>%{text}<extra></extra>",
    };
    if (how.as !== "eager") {
      trace.error_y = {
        type: "data", symmetric: false, thickness: 1.2, width: 3,
        array: values.map(function (one) { return known(Math.max(0, one.high - one.value)); }),
        arrayminus: values.map(function (one) { return known(Math.max(0, one.value - one.low)); }),
      };
    }
    return trace;
  }

  /** A dotted line across the figure, which also keeps its value in view. */
  function level(value, axis) {
    return {
      type: "scatter", mode: "lines", x: axis.layout.range.slice(), y: [value, value], name: "reference",
      line: { width: 1.4, dash: "dot" }, meta: { role: "reference" }, hoverinfo: "skip", showlegend: false,
    };
  }

  /** How far a fitted axis goes: half of the values' span beyond them, however wide an interval is. */
  function reach(shown, how) {
    var values = [];
    shown.lines.forEach(function (line) {
      shown.numbers.forEach(function (number) {
        values.push(shownAs(line, number, how).value);
      });
    });
    values = values.filter(isFinite);
    var least = Math.min.apply(null, values);
    var most = Math.max.apply(null, values);
    var room = Math.max(most - least, 2) / 2;
    return { clipmin: least - room, clipmax: most + room };
  }

  /** Pixels that a legend of many names needs beyond two rows. */
  function taller(traces, width) {
    var names = traces.filter(function (trace) { return trace.showlegend !== false; });
    var longest = Math.max.apply(null, names.map(function (trace) { return trace.name.length; }));
    var inRow = Math.max(1, Math.floor(width / (7 * longest + 50)));
    return 19 * Math.max(0, Math.ceil(names.length / inRow) - 2);
  }

  /** What a figure says of itself: its y axis, a note for the reader, a name, and its level. */
  function kind(now, all, how, shown, moved) {
    var unit = columns.units[now.suite][1];
    var ring = moved
      ? "; a ring is where the case moved, the pale band reaches back to the commit timed before" : "";
    if (how.as === "eager") {
      return {
        note: "eager's time over each one's at the same commit, without intervals; higher is better" + ring,
        label: "Speedup over eager of each implementation by commit", level: 1,
        yaxis: { type: "log", title: { text: "speedup over eager (×, log)" }, ticksuffix: "×", tickformat: "~g", nticks: 6 },
      };
    }
    if (how.as === "relative") {
      var id = all.commits[shown.from][0].slice(0, 8);
      var unlike = shown.lines.some(function (line) { return line.held !== shown.from; });
      return {
        note: "each one's time over its own at " + id + (unlike ? ", or the next that it has" : "") +
          "; bars and bands are 99 % intervals over that same time; lower is better; a click on a " +
          "point holds all against its commit" + ring,
        label: "Time of each implementation by commit, relative to its own at " + id, level: 100,
        yaxis: {
          type: "linear", title: { text: "time (% of that at " + id + ")" }, ticksuffix: " %",
          autorangeoptions: reach(shown, how),
        },
      };
    }
    return {
      note: "bars and bands are 99 % intervals; lower is better" + ring,
      label: "Time of each implementation by commit, with 99 % intervals", level: null,
      yaxis: { type: "log", title: { text: "time (" + unit + ", log)" }, tickformat: "~g" },
    };
  }

  function trend(now, all, how) {
    var shown = times.contents(now, all, how);
    if (!shown.lines.length) {
      return { traces: [], numbers: shown.numbers, nothing: shown.numbers.length
        ? "eager was not timed in this case, so nothing can be held against it."
        : "Nothing was timed in this case yet." };
    }
    var axis = marks.axis(shown.numbers, all, how);
    var steps = times.stepsOf(now);
    var said = kind(now, all, how, shown, steps.length > 0);
    var traces = shown.lines.map(function (line) { return traceOf(line, shown, axis, all, how); });
    if (shown.numbers.length > BARS && how.as !== "eager") {
      var bands = traces.map(band);
      traces.forEach(function (trace) {
        delete trace.error_y;
      });
      traces = bands.concat(traces);
    }
    var moved = rings(steps, shown, axis, all, how);
    var beside = marks.along(axis, {
      changes: now.changes, releases: all.releases, width: how.width,
      steps: steps.filter(function (step) { return step.before !== undefined; }).map(function (step) {
        return [step.before, step.at];
      }),
    });
    traces = traces.concat(
      moved.x.length ? [moved] : [], said.level === null ? [] : [level(said.level, axis)]
    );
    return {
      traces: traces,
      numbers: shown.numbers, from: shown.from, note: said.note,
      label: said.label + steps.map(function (step) { return ". Moved " + times.stepWords(step, all); }).join(""),
      title: now.title,
      layout: Object.assign(
        { height: 380 + taller(traces, how.width), xaxis: axis.layout, yaxis: said.yaxis }, beside
      ),
    };
  }

  function samples(now) {
    var unit = columns.units[now.suite];
    var traces = [];
    now.series.variants.forEach(function (name, variant) {
      var last = now.series.last[now.at][variant];
      if (last && last.status === "ok" && last.samples.length) {
        traces.push({
          type: "scatter", mode: "markers", name: name, meta: { role: name },
          x: last.samples.map(function (_, at) { return at + 1; }),
          y: last.samples.map(function (value) { return value * unit[0]; }),
          marker: { size: 6, symbol: own("symbols", variant), opacity: 0.8 },
          hovertemplate: "<b>%{fullData.name}</b>  sample %{x}: %{y:.4g} " + unit[1] + "<extra></extra>",
        });
      }
    });
    return {
      traces: traces,
      title: now.title,
      layout: {
        height: 300,
        xaxis: { title: { text: "sample, in the order of their taking" }, zeroline: false },
        yaxis: { type: "log", title: { text: "time (" + unit[1] + ", log)" }, tickformat: "~g" },
      },
    };
  }

  /** A trace in its colours; a band is that of its line, but pale. */
  function painted(trace, index) {
    var place = trace.meta.place;
    var found = page.paint(trace, place === undefined ? index : place);
    if (trace.fill) {
      found.fillcolor = found.line.color + "33";
    }
    return found;
  }

  /** Takes a figure away, and says why. */
  function empty(plot, words) {
    if (window.Plotly) {
      window.Plotly.purge(plot);
    }
    window.KERNL_TOOLS.hide(plot);
    plot.textContent = words;
  }

  /** Draws a figure of this file, or says why it has no lines; says whether it has. */
  function draw(plot, figure) {
    if (!figure.traces.length || !window.Plotly) {
      empty(plot, figure.nothing || "");
      return false;
    }
    if (!plot.querySelector(".main-svg")) {
      plot.textContent = "";
    }
    figure.layout.template = page.theme().template;
    if (figure.note) {
      plot.closest("figure").querySelector("figcaption span").textContent = figure.note;
      plot.setAttribute("aria-label", figure.label);
    }
    window.Plotly.react(plot, figure.traces.map(painted), figure.layout, {
      displayModeBar: false, responsive: true,
    });
    window.KERNL_TOOLS.show(plot, figure);
    return true;
  }

  window.KERNL_SERIES = {
    trend: trend,
    samples: samples,
    draw: draw,
    empty: empty,
  };
})();
