// The openai package of npm: only the base URL is changed.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "-" });
const ask = { model: "vote/loopback", messages: [{ role: "user", content: "What is 17 + 25?" }] };

const completion = await client.chat.completions.create(ask);
console.log("chat:", completion.choices[0].message.content, completion.tts);

let text = "";
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true }))
  text += chunk.choices[0]?.delta?.content ?? "";
console.log("chat, streamed:", text);

const response = await client.responses.create({ model: "vote/loopback", input: "What is 17 + 25?" });
console.log("responses:", response.output_text, response.usage.total_tokens, "tokens in all");
