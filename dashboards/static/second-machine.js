/* On the page of a case: the same case on a second machine, drawn in the same figure. */
(function () {
  "use strict";

  var columns = window.KERNL_COLUMNS;
  var page = window.KERNL_PAGE;

  /** Puts the choice of a machine into a row of choices; it calls changed() when one is chosen. */
  function offer(row, changed) {
    var label = columns.element("label", "Also on ");
    var said = columns.element("span");
    var asked = 0;
    var select = document.createElement("select");
    select.id = "also";
    select.autocomplete = "off";
    select.addEventListener("change", function () {
      page.remember("also", select.value);
      changed();
    });
    label.appendChild(select);
    label.hidden = true;
    row.appendChild(label);
    said.setAttribute("role", "status");
    row.appendChild(said);

    /** Offers the other machines that timed a suite; the one that is chosen, or null. */
    function chosen(all, which) {
      var others = all.machines.filter(function (one) {
        return one.folder !== which.machine && (one.measured[which.suite] || []).length;
      });
      var choices = others.map(function (one) { return [one.folder, one.name]; });
      columns.offer(select, [["", "no other machine"]].concat(choices), page.state().get("also"));
      label.hidden = !others.length;
      page.remember("also", select.value);
      return others.filter(function (one) { return one.folder === select.value; })[0] || null;
    }

    /** Calls done(what trend-times.js takes, or null), and says why there is nothing. */
    function find(all, which, done) {
      var other = chosen(all, which);
      var turn = (asked += 1);
      function found(one, words) {
        if (turn === asked) {
          said.textContent = words;
          done(one);
        }
      }
      function nothing() {
        found(null, other.name + " did not measure this case.");
      }
      if (!other) {
        found(null, "");
        return;
      }
      var file = "of/" + other.folder + "/" + which.suite + "-" + which.slug;
      columns.load(file, function (listed) {
        var place = listed.cases.indexOf(which.case);
        var part = Math.floor(place / listed.size);
        if (place < 0) {
          nothing();
          return;
        }
        columns.load(file + "-" + part, function (series) {
          found({
            series: series, at: place - part * listed.size, suite: which.suite, machine: other.name,
          }, "");
        }, nothing);
      }, nothing);
    }

    return { find: find };
  }

  window.KERNL_ALSO = { offer: offer };
})();
