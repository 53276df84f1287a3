/** What is chosen. `set` runs the listeners of the keys that changed, once each. */
export function createState(initial) {
  const listeners = [];
  const state = {
    ...initial,
    set(changes) {
      const changed = Object.keys(changes).filter((key) => !Object.is(state[key], changes[key]));
      Object.assign(state, changes);
      for (const { keys, run } of listeners) if (keys.some((key) => changed.includes(key))) run();
    },
    /** Runs now and after every change of one of `keys`. */
    on(keys, run) {
      listeners.push({ keys, run });
      run();
    },
  };
  return state;
}

/** Keys on which the map over the picture depends. */
export const VIEW = ["image", "branch", "group", "step", "frame", "head"];

/** The words over the picture: the one under the pointer alone, else those that are switched on. */
export function shownWords({ preview, words }) {
  return preview === null ? words : [preview];
}

/** Switches a word on or off; the last one switched on is the one whose heads are shown. */
export function toggleWord(state, name) {
  const on = state.words.includes(name);
  const words = on ? state.words.filter((word) => word !== name) : [...state.words, name];
  state.set({ words, preview: null, focus: on ? state.focus : name });
}
