/* What the gate says of two stored rows before it compares their numbers, and of eager after that:
   benchmarks/gate/findings.py and its reader benchmarks/gate/stored.py, in their order and words.
   Needs verdicts.js.

   A row is null where a commit has none, else {status, value, version, reason, run}: run is the
   fingerprint of its sweep, such as {gpu, driver, torch, triton}. A value that is not known is NaN
   or null. */
(function () {
  "use strict";

  var general = window.KERNL_VERDICTS.general;
  var LIMITS = { maxControlDrift: 0.02, minControlCases: 10 };
  var TIMED = ["kernels", "models"];
  var HIGHER_IS_BETTER = ["occupancy", "speedup"];
  var SAME = {
    codegen: ["triton", "ptxas"],
    kernels: ["gpu", "driver", "torch", "triton"],
    models: ["gpu", "driver", "torch", "triton", "transformers"],
  };
  var NOT_SELECTED = "left out of this run";
  var LEFT_OUT = [NOT_SELECTED, "left out of the quick profile"];
  var WORDS = { ok: "was measured", failed: "failed", skipped: "was n/a" };

  function own(table, key) {
    return Object.prototype.hasOwnProperty.call(table, key) ? table[key] : undefined;
  }

  function number(value) {
    return typeof value === "number" ? value : NaN;
  }

  function isTime(value) {
    return value > 0 && value < Infinity;
  }

  function status(row) {
    if (!row) {
      return "absent";
    }
    return row.status === "ok" && isNaN(number(row.value)) ? "failed" : row.status;
  }

  function text(value) {
    return value === null || value === undefined || value !== value ? "" : String(value).trim();
  }

  function was(which) {
    return own(WORDS, which) || "has no result";
  }

  function says(outcome, reason) {
    return { outcome: outcome, reason: reason };
  }

  function whyFailed(row) {
    var reason = text(row.reason);
    return reason ? "failed on head: " + reason : "failed on head, no reason recorded";
  }

  function isLeftOut(row) {
    return Boolean(row) && LEFT_OUT.indexOf(text(row.reason)) >= 0;
  }

  function byVersion(base, head) {
    var versions = "benchmark version " + base.version + " on base, " + head.version + " on head";
    return status(head) === "failed"
      ? says("undecided", whyFailed(head) + ", and " + versions)
      : says("version", versions);
  }

  // The outcome where one side has no number; null where both have.
  function byStatus(base, head) {
    var old = status(base);
    var now = status(head);
    if (base && head && base.version !== head.version) {
      return byVersion(base, head);
    }
    if (old === "ok" && now === "ok") {
      return null;
    }
    if (now === "failed") {
      var outcome = old === "ok" ? "failed" : old === "failed" ? "failing" : "undecided";
      return says(outcome, whyFailed(head) + (old === "ok" ? "" : ", and base " + was(old)));
    }
    if (now === "ok") {
      return says(old === "failed" ? "fixed" : "new", "base " + was(old));
    }
    if (isLeftOut(base) || isLeftOut(head)) {
      return says("skipped", NOT_SELECTED);
    }
    if (now === "skipped" && old !== "ok") {
      return says("skipped", "n/a on head, and base " + was(old));
    }
    if (old === "skipped") {
      return says("skipped", "n/a on base, no result on head");
    }
    return says("missing", "base " + was(old) + ", head " + was(now));
  }

  /** Why numbers of a suite cannot be compared, from both fingerprints; "" where they can be. */
  function differences(suite, base, head) {
    var found = [];
    (own(SAME, suite) || []).forEach(function (field) {
      var old = text(base && own(base, field));
      var now = text(head && own(head, field));
      if (!old || !now) {
        var sides = [old ? "" : "base", now ? "" : "head"].filter(Boolean).join(" and ");
        found.push(field + " not recorded for " + sides);
      } else if (old !== now) {
        found.push(field + " " + old + " on base, " + now + " on head");
      }
    });
    return found.length ? "not comparable: " + found.join("; ") : "";
  }

  /** {outcome, reason} of two rows whose numbers are not to be compared; null where they are. */
  function settled(suite, base, head) {
    var known = byStatus(base, head);
    if (known) {
      return known;
    }
    if (TIMED.indexOf(suite) >= 0) {
      var wrong = [base.value, head.value].filter(function (value) {
        return !isTime(value);
      });
      if (wrong.length) {
        var shown = wrong.map(function (value) {
          return general(value) + " s";
        });
        return says("undecided", "not a positive time: " + shown.join(", "));
      }
    }
    var why = differences(suite, base.run, head.run);
    return why ? says("undecided", why) : null;
  }

  function median(values) {
    var sorted = values.slice().sort(function (one, other) {
      return one - other;
    });
    var half = Math.floor(sorted.length / 2);
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  }

  /** How eager, whose code did not change, moved in one suite: {ratio, cases, blocks}.

      Each of `judged` is {ratio, driftRemoved, eagerBase, eagerHead}: what was decided of a case,
      and eager's values, NaN or null unless they are good. Where it blocks, the machine changed and
      no verdict of the two commits counts. */
  function controlDrift(judged) {
    var ratios = [];
    judged.forEach(function (one) {
      var good = isTime(one.eagerBase) && isTime(one.eagerHead);
      if (good && !one.driftRemoved && !isNaN(number(one.ratio))) {
        ratios.push(one.eagerHead / one.eagerBase);
      }
    });
    var ratio = ratios.length ? median(ratios) : NaN;
    var blocks =
      ratios.length >= LIMITS.minControlCases && Math.abs(ratio - 1) > LIMITS.maxControlDrift;
    return { ratio: ratio, cases: ratios.length, blocks: blocks };
  }

  /** What a test of two Evidence divided out, with all that its ratio was made of; else null.

      Times are geometric means in seconds: kernl's change is `kernl`, what eager moved by is
      `drift`, and the ratio of the test is kernl / drift. */
  function dividedOut(test, base, head) {
    if (!test.driftRemoved) {
      return null;
    }
    var eager = [base.mean - base.residualMean, head.mean - head.residualMean];
    return {
      kernlBase: Math.exp(base.mean),
      kernlHead: Math.exp(head.mean),
      kernl: Math.exp(head.mean - base.mean),
      eagerBase: Math.exp(eager[0]),
      eagerHead: Math.exp(eager[1]),
      drift: Math.exp(eager[1] - eager[0]),
    };
  }

  window.KERNL_OUTCOMES = {
    limits: LIMITS,
    settled: settled,
    differences: differences,
    controlDrift: controlDrift,
    dividedOut: dividedOut,
    lowerIsBetter: function (metric) {
      return HIGHER_IS_BETTER.indexOf(metric) < 0;
    },
  };
})();
