import { setImmediate } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type GatherOptions, gather } from './gather.ts'
import { DatabaseUnavailable } from './unavailable.ts'

const SECOND = 1000
/** A deadline that does not come in a test. */
const NEVER = 1_000_000

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance', 'setInterval', 'clearInterval'] }))
afterEach(() => void vi.useRealTimers())

/** Until answers have led to the batches that they let go. */
async function turn() {
  for (let i = 0; i < 3; i++) await setImmediate()
}

type Batch = { items: string[]; until: number; answer(): void; fail(error: unknown): void }

/** A gather whose batches are answered by the test: each item with itself in capitals. */
function gathering(options: Partial<GatherOptions<string, string>> = {}) {
  const batches: Batch[] = []
  const ask = gather<string, string>({
    maxInFlight: 2,
    maxWeight: 3,
    run: (items, until) =>
      new Promise((resolve, reject) => {
        batches.push({ items, until, answer: () => resolve(items.map((item) => item.toUpperCase())), fail: reject })
      }),
    ...options,
  })
  /** What was sent since the last call. */
  let seen = 0
  const sent = () => {
    const fresh = batches.slice(seen).map(({ items }) => items)
    seen = batches.length
    return fresh
  }
  return { ask, batches, sent }
}

/** Asks, and has the outcome at hand: undefined while there is none. */
function outcomeOf(answer: Promise<string>) {
  const outcome: { value?: string; error?: unknown } = {}
  answer.then(
    (value) => {
      outcome.value = value
    },
    (error) => {
      outcome.error = error
    },
  )
  return outcome
}

test('an item that is alone goes at the end of the turn, without waiting for a timer', async () => {
  const { ask, batches, sent } = gathering()
  const answer = ask('a', NEVER)
  expect(sent()).toEqual([])
  await turn()
  expect(sent()).toEqual([['a']])
  batches[0]?.answer()
  expect(await answer).toBe('A')
})

test('items of one turn go together, in their order, in batches of at most maxWeight', async () => {
  const { ask, batches, sent } = gathering()
  const answers = [...'abcde'].map((item) => ask(item, NEVER))
  await turn()
  expect(sent()).toEqual([[...'abc'], [...'de']])
  for (const batch of batches.toReversed()) batch.answer()
  expect(await Promise.all(answers)).toEqual([...'ABCDE'])
})

test('who asks again as soon as it is answered goes along with those who wait', async () => {
  const { ask, batches, sent } = gathering({ maxInFlight: 1 })
  const again = ask('a', NEVER).then(async () => {
    // A client's next request comes with the next turn of the event loop.
    await setImmediate()
    return ask('c', NEVER)
  })
  await turn()
  void ask('b', NEVER)
  await turn()
  batches[0]?.answer()
  await turn()
  expect(sent()).toEqual([['a'], ['b', 'c']])
  batches[1]?.answer()
  expect(await again).toBe('C')
})

test('at most maxInFlight batches are under way: what comes meanwhile goes together afterwards', async () => {
  const { ask, batches, sent } = gathering()
  for (const item of 'ab') {
    void ask(item, NEVER)
    await turn()
  }
  for (const item of 'cdef') {
    void ask(item, NEVER)
    await turn()
  }
  expect(sent()).toEqual([['a'], ['b']])
  batches[1]?.answer()
  await turn()
  expect(sent()).toEqual([[...'cde']])
  batches[0]?.answer()
  await turn()
  expect(sent()).toEqual([['f']])
})

test('the weight of a batch is bounded, and an item that is heavier than the bound goes alone', async () => {
  const { ask, batches, sent } = gathering({ maxWeight: 5, weigh: (item) => item.length })
  for (const item of ['aa', 'bb', 'cc', 'dddddddd', 'e']) void ask(item, NEVER)
  await turn()
  expect(sent()).toEqual([['aa', 'bb'], ['cc']])
  for (const batch of batches) batch.answer()
  await turn()
  expect(sent()).toEqual([['dddddddd'], ['e']])
})

test('each item leaves at its own deadline, and takes no other along', async () => {
  const { ask, batches, sent } = gathering()
  const [first, second] = [outcomeOf(ask('a', SECOND)), outcomeOf(ask('b', 3 * SECOND))]
  await turn()
  void ask('other', NEVER)
  await turn()
  const [late, patient] = [outcomeOf(ask('c', 2 * SECOND)), outcomeOf(ask('d', 9 * SECOND))]
  expect(batches[0]?.until).toBe(3 * SECOND)
  vi.advanceTimersByTime(SECOND)
  await turn()
  expect(first.error).toMatchObject({ reached: 'lost' })
  expect([second, late, patient]).toEqual([{}, {}, {}])
  vi.advanceTimersByTime(SECOND)
  await turn()
  expect(late.error).toBeInstanceOf(DatabaseUnavailable)
  expect(late.error).toMatchObject({ reached: 'unsent' })
  batches[0]?.answer()
  await turn()
  expect(second).toEqual({ value: 'B' })
  expect(sent()).toEqual([[...'ab'], ['other'], ['d']])
})

test('an error fails its batch and no other', async () => {
  const { ask, batches } = gathering()
  const outcomes = [...'abcd'].map((item) => outcomeOf(ask(item, NEVER)))
  await turn()
  const error = new Error('for the test')
  batches[0]?.fail(error)
  batches[1]?.answer()
  await turn()
  expect(outcomes).toEqual([{ error }, { error }, { error }, { value: 'D' }])
  const next = ask('e', NEVER)
  await turn()
  batches[2]?.answer()
  expect(await next).toBe('E')
})

test('a result may be a promise, which holds up no other item and no batch', async () => {
  const late = Promise.withResolvers<string>()
  const { ask } = gathering({
    run: async (items) => items.map((item) => (item === 'late' ? late.promise : item.toUpperCase())),
  })
  const outcomes: ReturnType<typeof outcomeOf>[] = []
  // Each turn begins a batch, and most of them are not done if a batch waits for its late item.
  for (const item of 'abc') {
    outcomes.push(outcomeOf(ask('late', NEVER)), outcomeOf(ask(item, NEVER)))
    await turn()
  }
  expect(outcomes).toEqual([{}, { value: 'A' }, {}, { value: 'B' }, {}, { value: 'C' }])
  const error = new Error('for the test')
  late.reject(error)
  await turn()
  expect(outcomes[0]).toEqual({ error })
})

test('a result that is a promise comes before the deadline of its item, or not at all', async () => {
  const { ask } = gathering({ run: async (items) => items.map(() => Promise.withResolvers<string>().promise) })
  const [first, second] = [outcomeOf(ask('a', SECOND)), outcomeOf(ask('b', 3 * SECOND))]
  await turn()
  vi.advanceTimersByTime(SECOND)
  await turn()
  expect(first.error).toMatchObject({ reached: 'lost' })
  expect(second).toEqual({})
})
