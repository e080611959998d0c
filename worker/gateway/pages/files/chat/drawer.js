// The list of conversations on a narrow screen: it slides in from the side, and keeps the focus while it is there.

const NARROW = "(max-width: 860px)";

export class Drawer {
  constructor({ side, rest, button, close, shade }) {
    this.side = side;
    this.rest = rest;
    this.button = button;
    this.narrow = matchMedia(NARROW);
    this.isOpen = false;
    button.addEventListener("click", () => this.open());
    close.addEventListener("click", () => this.close());
    shade.addEventListener("click", () => this.close());
    this.shade = shade;
    this.closeButton = close;
    side.addEventListener("keydown", (event) => event.key === "Escape" && this.isOpen && this.close());
    this.narrow.addEventListener("change", () => this.#apply());
    this.#apply();
  }

  open() {
    this.isOpen = true;
    this.#apply();
    this.closeButton.focus();
  }

  close({ giveFocus = true } = {}) {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.#apply();
    if (giveFocus) this.button.focus();
  }

  #apply() {
    const isDrawer = this.narrow.matches;
    const isShown = !isDrawer || this.isOpen;
    this.side.inert = !isShown;
    this.rest.inert = isDrawer && this.isOpen;
    this.shade.hidden = !(isDrawer && this.isOpen);
    this.side.classList.toggle("is-open", isDrawer && this.isOpen);
    this.button.setAttribute("aria-expanded", String(isDrawer && this.isOpen));
  }
}
