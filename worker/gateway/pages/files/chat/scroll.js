// Keeps the end of what grows in sight, as long as the reader is there.

const NEAR_PX = 40;

export class Follower {
  /** `box` scrolls, `content` grows in it; `onLeft(isAway)` hears when the reader leaves the end and comes back. */
  constructor(box, content, onLeft) {
    this.box = box;
    this.isAtEnd = true;
    this.onLeft = onLeft;
    this.lastTop = 0;
    box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    const observer = new ResizeObserver(() => this.isAtEnd && this.#toEnd());
    observer.observe(content);
    observer.observe(box);
  }

  /** Go to the end and stay there. */
  jump() {
    this.#is(true);
    this.#toEnd();
  }

  /** Run what changes the content above, and keep what is read where it is. */
  keepPlace(change) {
    const fromEnd = this.box.scrollHeight - this.box.scrollTop;
    change();
    this.box.scrollTop = this.box.scrollHeight - fromEnd;
  }

  #toEnd() {
    this.box.scrollTop = this.box.scrollHeight;
    this.lastTop = this.box.scrollTop;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.box;
    if (scrollHeight - scrollTop - clientHeight < NEAR_PX) this.#is(true);
    else if (scrollTop < this.lastTop) this.#is(false); // up: only a reader goes there
    this.lastTop = scrollTop;
  }

  #is(isAtEnd) {
    if (this.isAtEnd === isAtEnd) return;
    this.isAtEnd = isAtEnd;
    this.onLeft(!isAtEnd);
  }
}
