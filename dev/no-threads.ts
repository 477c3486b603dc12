/** What pino takes of thread-stream, for a log that is written by this thread: nothing is ever made of this. */
export default class ThreadStream {}
