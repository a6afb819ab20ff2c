/* Sorts and filters tables. The address holds the order and the words of each: sort-TABLE=COLUMN,
   with a "-" behind it where the column falls, and filter-TABLE=WORDS. Needs address.js. */
(function () {
  "use strict";

  var address = window.KERNL_ADDRESS;
  var LONGEST_NAME = 60;

  function own(table, key) {
    return Object.prototype.hasOwnProperty.call(table, key) ? table[key] : undefined;
  }

  /** Words as a name for the address: "Over eager, ×" is over-eager. */
  function nameOf(text) {
    var words = text.toLowerCase().match(/[\p{L}\p{N}]+/gu) || ["column"];
    return words.join("-").slice(0, LONGEST_NAME).replace(/-$/, "");
  }

  /** Makes names differ: the second of the same ends in -2. */
  function differing() {
    var used = {};
    return function (name) {
      var found = name;
      for (var number = 2; own(used, found); number += 1) {
        found = name + "-" + number;
      }
      used[found] = true;
      return found;
    };
  }

  function valueOf(cell) {
    var value = cell.dataset.value;
    return value === undefined ? cell.textContent.trim() : value === "" ? NaN : Number(value);
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") {
      /* Missing numbers sink to the bottom whichever way the column is sorted. */
      return isNaN(a) ? (isNaN(b) ? 0 : 2) : isNaN(b) ? -2 : a < b ? -1 : a > b ? 1 : 0;
    }
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }

  /* ---- order ---- */

  /** A table as {table, key, columns, order}: names of its columns, and how it is sorted. */
  function sortable(table, name) {
    var distinct = differing();
    var columns = Array.prototype.map.call(table.tHead.rows[0].cells, function (heading) {
      return distinct(nameOf(heading.textContent));
    });
    return { table: table, key: "sort-" + name, columns: columns, order: "", rows: null };
  }

  /** {column, up} of an order such as case-; null where the table has no such column. */
  function parsed(one, order) {
    var column = one.columns.indexOf(order.replace(/-$/, ""));
    return column < 0 ? null : { column: column, up: order.slice(-1) !== "-" };
  }

  /** Sorts anew from the order that the page came with, which an empty or unknown order is. */
  function sort(one, order) {
    var wanted = parsed(one, order);
    order = wanted ? order : "";
    if (order === one.order) {
      return;
    }
    var body = one.table.tBodies[0];
    one.order = order;
    one.rows = one.rows || Array.prototype.slice.call(body.rows);
    var rows = one.rows.slice();
    if (wanted) {
      rows.sort(function (a, b) {
        var first = compare(valueOf(a.cells[wanted.column]), valueOf(b.cells[wanted.column]));
        return Math.abs(first) === 2 || wanted.up ? first : -first;
      });
    }
    rows.forEach(function (row) {
      body.appendChild(row);
    });
    Array.prototype.forEach.call(one.table.tHead.rows[0].cells, function (cell, column) {
      if (wanted && wanted.column === column) {
        cell.setAttribute("aria-sort", wanted.up ? "ascending" : "descending");
      } else {
        cell.removeAttribute("aria-sort");
      }
    });
  }

  function addButtons(one) {
    Array.prototype.forEach.call(one.table.tHead.rows[0].cells, function (heading, column) {
      var button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      while (heading.firstChild) {
        button.appendChild(heading.firstChild);
      }
      button.addEventListener("click", function () {
        var name = one.columns[column];
        sort(one, one.order === name ? name + "-" : name);
        address.remember(one.key, one.order);
      });
      heading.appendChild(button);
    });
  }

  var distinctTable = differing();
  var tables = Array.prototype.map.call(
    document.querySelectorAll("table.sortable"),
    function (table) {
      var one = sortable(
        table,
        distinctTable(table.id || nameOf(table.caption ? table.caption.textContent : "table"))
      );
      addButtons(one);
      return one;
    }
  );

  /* ---- filters ---- */

  function filterRows(input) {
    var table = document.getElementById(input.dataset.filter);
    var said = document.getElementById(input.dataset.filter + "-count");
    var words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    var shown = 0;
    Array.prototype.forEach.call(table.tBodies[0].rows, function (row) {
      var text = row.textContent.toLowerCase();
      row.hidden = !words.every(function (word) {
        return text.indexOf(word) >= 0;
      });
      shown += row.hidden ? 0 : 1;
    });
    said.textContent = shown + " of " + table.tBodies[0].rows.length + " rows";
  }

  function filterKey(input) {
    return "filter-" + input.dataset.filter;
  }

  var filters = Array.prototype.slice.call(document.querySelectorAll("input[data-filter]"));
  filters.forEach(function (input) {
    input.closest(".filter").hidden = false;
    input.maxLength = address.LONGEST;
    input.addEventListener("input", function () {
      filterRows(input);
      address.remember(filterKey(input), input.value);
    });
  });

  /** Shows the tables as the address says. */
  function read() {
    var kept = address.state();
    tables.forEach(function (one) {
      sort(one, kept.get(one.key) || "");
    });
    filters.forEach(function (input) {
      var words = address.words(filterKey(input));
      if (words !== input.value) {
        input.value = words;
        filterRows(input);
      }
    });
  }
  window.addEventListener("hashchange", read);
  read();

  window.KERNL_TABLES = { value: valueOf };
})();
