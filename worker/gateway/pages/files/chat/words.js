// What to say when something went wrong: what it means, and what to do.

/** Of the gateway's refusals, by code or status. */
export function wordsFor(error) {
  switch (error.code || error.status) {
    case "access_denied":
      return `You may not talk to this agent now: ${error.message}. Choose another one, or ask whoever runs this gateway.`;
    case "agent_not_found":
      return "This agent is not there any more. Start a new conversation with another one.";
    case "agent_unusable":
      return `This agent cannot answer now: ${error.message}.`;
    case "session_not_found":
    case "conversation_not_found":
      return "This conversation is not there any more: it was deleted, it was not used for a long time, or it belongs to another key.";
    case "session_closed":
      return "This conversation was closed: it can be read, but takes no more messages.";
    case "conversation_busy":
      return "The agent is still answering. Wait for the end of the answer, or stop it.";
    case "message_too_long":
      return "This message is too long. Shorten it, or send it in parts.";
    case "too_much":
      return `Too much is waiting here already. ${error.message}.`;
    case "queue_full":
      return "The fleet has too much to do right now. Send it again in a moment.";
    case "backend_unavailable":
      return "The gateway cannot reach its queue right now. Send it again in a moment.";
    case "nothing_to_retry":
      return "There is nothing that could be asked again now.";
    case 401:
      return "This gateway wants an API key.";
    case 429:
      return "Too many requests in a short time. Send it again in a moment.";
    default:
      return error.message;
  }
}

const ADVICE = {
  AuthenticationFailed: "The fleet's credentials for this model are refused: tell whoever runs it.",
  BadResponse: "The model answered with something that cannot be read. Asking again often helps.",
  BudgetExceeded: "A budget is used up. It has to be raised, or its period has to end.",
  ContextTooLong: "The conversation does not fit into the model any more. Start a new one, or ask something shorter.",
  DeadlineExceeded: "It took longer than it may. Asking again may help, or a smaller question.",
  InvalidRequest: "The model does not take this request. Ask in another way.",
  LimitReached: "The agent reached its own limit of turns or tokens. A smaller question may help.",
  Overloaded: "The model has too much to do. Ask again in a moment.",
  ProviderTimeout: "The model did not answer in time. Ask again in a moment.",
  RateLimited: "The model takes no more requests for now. Ask again in a moment.",
  Refused: "The model declined to answer. Ask in another way.",
  StreamBroken: "The answer broke off. Asking again often helps.",
  Unavailable: "The model cannot be reached. Ask again in a moment.",
  WaitedTooLong: "There was no room for this request for too long. Ask again later.",
};

/** Of an answer that failed. */
export function adviceFor(errorType) {
  return ADVICE[errorType] ?? "Asking again may help.";
}
