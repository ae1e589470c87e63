// Does to BullMQ's queues what it is told, one JSON object a line on standard input, and answers
// each with one line: `node worker.mjs VERSION SOCKET PREFIX`.

import readline from 'node:readline';

const [version, path, prefix] = process.argv.slice(2);
const { FlowProducer, Queue, Worker } = await import(`bullmq${version}`);
const connection = { path, maxRetriesPerRequest: null };
const queues = new Map();
const workers = [];

function queue(name) {
  if (!queues.has(name)) queues.set(name, new Queue(name, { prefix, connection }));
  return queues.get(name);
}

// What becomes of a job stands in its data.
async function process_(job) {
  if (job.data.end === 'hold') await new Promise(() => setInterval(() => {}, 60_000));
  if (job.data.end === 'fail') throw new Error('as asked');
}

function worker(name, options) {
  const made = new Worker(name, process_, { prefix, connection, concurrency: 10, ...options });
  made.on('error', () => {});
  workers.push(made);
  return made;
}

const actions = {
  open: async ({ queue: name }) => void (await queue(name).waitUntilReady()),
  add: async ({ queue: name, job, end, options }) =>
    (await queue(name).add('job', { end }, { jobId: job ?? undefined, ...options })).id,
  // A job that waits for another one.
  flow: async ({ queue: name, job, child }) =>
    void (await new FlowProducer({ prefix, connection }).add({
      name: 'job',
      queueName: name,
      opts: { jobId: job },
      children: [{ name: 'child', queueName: child, data: {} }],
    })),
  work: async ({ queue: name, options }) =>
    void (await worker(name, { skipStalledCheck: true, ...options }).waitUntilReady()),
  // The stalled checker alone: takes no job.
  check: async ({ queue: name, options }) => {
    const made = worker(name, { autorun: false, ...options });
    await made.waitUntilReady();
    await made.startStalledCheckTimer();
  },
  pause: async ({ queue: name }) => void (await queue(name).pause()),
  resume: async ({ queue: name }) => void (await queue(name).resume()),
  remove: async ({ queue: name, job }) => await queue(name).remove(job),
  obliterate: async ({ queue: name }) => void (await queue(name).obliterate({ force: true })),
  // What BullMQ itself says.
  counts: async ({ queue: name }) => await queue(name).getJobCounts(),
  state: async ({ queue: name, job }) => {
    const found = await queue(name).getJob(job);
    if (!found) return { state: 'unknown', active: false };
    return { state: await found.getState(), active: await found.isActive() };
  },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { action, ...values } = JSON.parse(line);
  let answer;
  try {
    answer = { value: (await actions[action](values)) ?? null };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);
