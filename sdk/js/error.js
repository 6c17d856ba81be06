// What the gateway refuses is thrown; the word it gives is in `reason`.

export class EditError extends Error {
  constructor(reason) {
    super(`an edit was refused: ${reason}`);
    this.name = "EditError";
    this.reason = reason;
  }
}

// The word that came with something that the gateway threw.
export function reasonOf(thrown) {
  const payload = thrown?.payload ?? thrown;
  return typeof payload === "string" ? payload : String(payload?.message ?? payload);
}

// Calls the gateway for an edit.
export function edit(call) {
  try {
    call();
  } catch (thrown) {
    throw new EditError(reasonOf(thrown));
  }
}
