/* What a reader chose, in the address after "#": keys and values, so that a link shows the same.
   An address may also name a place on the page, such as #content: it has no "=". */
(function () {
  "use strict";

  var LONGEST = 200; /* of what is typed, in characters: an address may hold more than anybody types */
  var last = "";

  function hash() {
    return window.location.hash.slice(1);
  }

  function isPlace() {
    return hash() !== "" && hash().indexOf("=") < 0;
  }

  function state() {
    return new URLSearchParams(isPlace() ? "" : hash());
  }

  function write(text) {
    last = text;
    try {
      var page = window.location.pathname + window.location.search;
      window.history.replaceState(null, "", text ? "#" + text : page);
    } catch (refused) {
      /* Some browsers refuse this on file://; the choice still holds. */
    }
  }

  /** Keeps some values by key, beside all others; an empty one is left out. */
  function rememberAll(values) {
    var kept = state();
    Object.keys(values).forEach(function (key) {
      if (values[key]) {
        kept.set(key, values[key]);
      } else {
        kept.delete(key);
      }
    });
    write(kept.toString());
  }

  function remember(key, value) {
    var values = {};
    values[key] = value;
    rememberAll(values);
  }

  /* Who goes to a place on the page keeps what was chosen. */
  window.addEventListener("hashchange", function () {
    if (!isPlace()) {
      last = hash();
    } else if (last) {
      write(last);
    }
  });
  last = isPlace() ? "" : hash();

  window.KERNL_ADDRESS = {
    state: state,
    remember: remember,
    rememberAll: rememberAll,
    LONGEST: LONGEST,
    /** Words that were typed, under a key; "" where there are none. */
    words: function (key) {
      return (state().get(key) || "").slice(0, LONGEST);
    },
  };
})();
