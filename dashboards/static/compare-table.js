/* The table of the page Compare: its rows, their order, and what is told above and below it.
   Needs columns.js and compared.js. */
(function () {
  "use strict";

  var columns = window.KERNL_COLUMNS;
  var told = window.KERNL_COMPARED;
  var MOST = 200;
  var TONES = {
    failed: "worse", regressed: "worse", slower: "worse",
    improved: "better", faster: "better", fixed: "better",
  };
  var rows = [];
  var showAll = false;
  var chosenOrder = "";

  function by(id) {
    return document.getElementById(id);
  }

  function shown() {
    var words = by("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    var verdict = by("verdict").value;
    var show = by("show").value;
    return told.order(
      rows.filter(function (one) {
        var text = (one.name + " " + one.case + " " + one.variant + " " + one.metric).toLowerCase();
        return (
          one.suite === show &&
          (!verdict || one.said.verdict === verdict) &&
          words.every(function (word) {
            return text.indexOf(word) >= 0;
          })
        );
      }),
      chosenOrder
    );
  }

  function caseHref(one) {
    var place = new URLSearchParams();
    place.set("machine", by("head-machine").value);
    place.set("suite", one.suite);
    place.set("of", one.name);
    place.set("case", one.case);
    return "case.html#" + place.toString();
  }

  function added(row, name, text, className, note) {
    var cell = columns.element(name, text, className);
    if (note) {
      cell.appendChild(document.createTextNode(" "));
      cell.appendChild(columns.element("small", note));
    }
    row.appendChild(cell);
    return cell;
  }

  function line(one) {
    var row = document.createElement("tr");
    var unit = (columns.units[one.suite] || ["", ""])[1];
    var tone = TONES[one.said.verdict] || "";
    added(row, "th", one.name).scope = "row";
    if (one.suite === "codegen") {
      added(row, "td", one.case, "", one.variant + " " + one.metric.replace(/_/g, " "));
    } else {
      var link = columns.element("a", one.case);
      link.href = caseHref(one);
      added(row, "td", "").appendChild(link);
    }
    [one.base, one.head].forEach(function (side) {
      var text = told.value(side, one);
      added(row, "td", text + (text === "–" || !unit ? "" : "\u00a0" + unit), "number");
    });
    var change = added(
      row, "td", columns.percent(one.said.ratio), "number " + tone, told.interval(one)
    );
    told.driftLines(one).forEach(function (words) {
      change.appendChild(document.createTextNode(" "));
      change.appendChild(columns.element("small", words, "drift"));
    });
    added(row, "td", one.said.verdict, tone, told.why(one));
    return row;
  }

  /** Says once what the rows say in figures, where eager's drift was divided out of any. */
  function tellDrift(list) {
    var count = list.filter(function (one) {
      return one.drift;
    }).length;
    by("about-drift").hidden = !count;
    by("about-drift").textContent = count
      ? "Eager's code is the same at both commits, so what its time moved by is put down to the " +
        "machine: its drift. In " + count + " of these " + list.length + " cases dividing it out " +
        "makes the verdict surer: there the change is (1 + kernl's) ÷ (1 + the drift) − 1. Both " +
        "are of geometric means of the samples, which the row gives in small print; Base and Head " +
        "are medians, which a few slow samples do not move."
      : "";
  }

  function fill() {
    var list = shown();
    var body = by("compared").tBodies[0];
    var part = showAll ? list : list.slice(0, MOST);
    var fragment = document.createDocumentFragment();
    part.forEach(function (one) {
      fragment.appendChild(line(one));
    });
    body.textContent = "";
    body.appendChild(fragment);
    by("more").hidden = part.length === list.length;
    by("more").textContent = "Show all " + list.length + " rows";
    by("compared-count").textContent =
      (part.length < list.length ? part.length + " of " : "") + list.length + " rows";
    tellDrift(list);
    var ratios = list.map(told.ratioOf).filter(function (ratio) {
      return ratio > 0 && isFinite(ratio);
    });
    var sum = ratios.reduce(function (total, ratio) {
      return total + Math.log(ratio);
    }, 0);
    by("mean").textContent = ratios.length
      ? "Geometric mean of head over base: " + columns.percent(Math.exp(sum / ratios.length)) +
        " over " + ratios.length + (ratios.length === 1 ? " case." : " cases.")
      : "No case has a number on both sides.";
    Array.prototype.forEach.call(by("compared").tHead.rows[0].cells, function (cell) {
      var wanted = cell.dataset.order && chosenOrder.replace("-", "") === cell.dataset.order;
      if (wanted) {
        cell.setAttribute("aria-sort", chosenOrder.slice(-1) === "-" ? "descending" : "ascending");
      } else {
        cell.removeAttribute("aria-sort");
      }
    });
  }

  /** Offers the verdicts that some rows have. */
  function offerVerdicts(list, wanted) {
    var counts = {};
    var here = list.filter(function (one) {
      return one.suite === by("show").value;
    });
    here.forEach(function (one) {
      counts[one.said.verdict] = (counts[one.said.verdict] || 0) + 1;
    });
    var known = told.ORDER.filter(function (name) {
      return counts[name];
    });
    columns.offer(
      by("verdict"),
      [["", "all (" + here.length + ")"]].concat(
        known.map(function (name) {
          return [name, name + " (" + counts[name] + ")"];
        })
      ),
      wanted
    );
  }

  /** What both sides were measured on: a row for each fact, of one suite or several runs. */
  function tellMachines(files) {
    var facts = {};
    files.forEach(function (ofSide, side) {
      ofSide.forEach(function (file) {
        file.prints.forEach(function (print) {
          Object.keys(print).forEach(function (key) {
            facts[key] = facts[key] || [[], []];
            if (print[key] && facts[key][side].indexOf(print[key]) < 0) {
              facts[key][side].push(print[key]);
            }
          });
        });
      });
    });
    var body = by("beneath").tBodies[0];
    body.textContent = "";
    Object.keys(facts).sort().forEach(function (key) {
      var row = document.createElement("tr");
      var told = facts[key].map(function (values) {
        return values.join(", ") || "not recorded";
      });
      added(row, "th", key).scope = "row";
      added(row, "td", told[0]);
      added(row, "td", told[1]);
      added(row, "td", told[0] === told[1] ? "the same" : "differs", told[0] === told[1] ? "" : "worse");
      body.appendChild(row);
    });
    by("beneath-part").hidden = !body.rows.length;
  }

  by("more").addEventListener("click", function () {
    showAll = true;
    fill();
  });

  window.KERNL_COMPARE_TABLE = {
    /** Shows rows, or none, as the form and the order say. */
    show: function (list) {
      rows = list;
      fill();
    },
    fill: fill,
    shown: shown,
    offerVerdicts: offerVerdicts,
    tellMachines: tellMachines,
    order: function () {
      return chosenOrder;
    },
    /** Orders by a column, such as case or change-; the next `fill` shows it. */
    setOrder: function (order) {
      chosenOrder = order;
    },
  };
})();
