/* What pages save: tables and rows as CSV and as Parquet. Needs tables.js and parquet.js. */
(function () {
  "use strict";

  function oneLine(text) {
    return text.trim().replace(/\s+/g, " ");
  }

  function csvText(text) {
    var line = oneLine(text);
    /* A spreadsheet would run a text that begins like a formula. A number may begin so. */
    if (/^[=+\-@]/.test(line) && !/^[+-]?[0-9.]+( %)?$/.test(line)) {
      line = "'" + line;
    }
    return /[",]/.test(line) ? '"' + line.replace(/"/g, '""') + '"' : line;
  }

  function csvCell(cell) {
    var number = cell.dataset.value;
    return number !== undefined ? number : csvText(cell.textContent);
  }

  /** Saves a file under its name, which says of what type it is. */
  function save(name, parts) {
    var link = document.createElement("a");
    var type = /\.csv$/.test(name) ? "text/csv" : "application/vnd.apache.parquet";
    link.href = window.URL.createObjectURL(new Blob(parts, { type: type }));
    link.download = name;
    link.click();
    window.setTimeout(function () {
      window.URL.revokeObjectURL(link.href);
    }, 10000);
  }

  function saveCsv(name, lines) {
    save(name + ".csv", ["\ufeff", lines.join("\r\n") + "\r\n"]);
  }

  /** The shown part of a table as columns: of numbers where each cell has one to sort by. */
  function tableColumns(table) {
    var rows = Array.prototype.slice.call(table.rows);
    var head = rows.shift();
    return Array.prototype.map.call(head ? head.cells : [], function (heading, column) {
      function hasNumber(row) {
        return row.cells[column].dataset.value !== undefined;
      }
      var numeric = rows.length > 0 && rows.every(hasNumber);
      var shown = rows.filter(function (row) {
        return !row.hidden;
      });
      return {
        name: oneLine(heading.textContent),
        kind: numeric ? "number" : "text",
        values: shown.map(function (row) {
          var value = window.KERNL_TABLES.value(row.cells[column]);
          return !numeric ? oneLine(row.cells[column].textContent) : isNaN(value) ? null : value;
        }),
      };
    });
  }

  /** Puts a button for Parquet beside one for CSV; clicked, it saves the columns that are found. */
  function offerParquet(button, name, find) {
    var other = document.createElement("button");
    other.type = "button";
    other.className = button.className;
    other.textContent = "Download Parquet";
    other.addEventListener("click", function () {
      save(name + ".parquet", [window.KERNL_PARQUET(find())]);
    });
    button.insertAdjacentElement("afterend", other);
  }

  Array.prototype.forEach.call(document.querySelectorAll("button[data-csv]"), function (button) {
    var page = window.location.pathname.split("/").pop().replace(/\.html$/, "") || "index";
    var table = document.getElementById(button.dataset.csv);
    var name = "kernl-" + page + "-" + table.id;
    button.hidden = false;
    button.addEventListener("click", function () {
      var rows = Array.prototype.filter.call(table.rows, function (row) {
        return !row.hidden;
      });
      var lines = rows.map(function (row) {
        return Array.prototype.map.call(row.cells, csvCell).join(",");
      });
      saveCsv(name, lines);
    });
    offerParquet(button, name, function () {
      return tableColumns(table);
    });
  });

  window.KERNL_DOWNLOADS = {
    /** Saves rows of text as name.csv. */
    saveRows: function (name, rows) {
      saveCsv(
        name,
        rows.map(function (row) {
          return row.map(csvText).join(",");
        })
      );
    },
    offerParquet: offerParquet,
  };
})();
