// millrace bench modal
#include "bench/images.h"
#include "cli/bench_rounds.h"

namespace millrace::cli {
namespace {

Result<int> run(RoundsArgs& args) {
  MR_RETURN_IF_ERROR(check_rounds(args));
  const auto format = bench::find_image_format(args.image_format);
  if (!format.ok()) return format.status().at("--image-format");
  const auto first = bench::random_image(*format, args.image_height, args.image_width, args.seed);
  if (!first.ok()) return first.status().at("--height, --width");
  MR_ASSIGN_OR_RETURN(const bench::BackEnd* back_end, bench::find_back_end(args.target.backend));
  if (!back_end->takes_images)
    return invalid_argument("--backend {} takes no pictures; openai-chat does", args.target.backend);
  MR_ASSIGN_OR_RETURN(LoadSetup setup,
                      open_load("modal", args.target, args.output, {bench::data_url(*format, *first)}));
  MR_ASSIGN_OR_RETURN(const auto points, measure_rounds(args, {&setup}));
  return finish_load(setup, args.output, points[0], /*is_static=*/true, 0);
}

}  // namespace

int bench_modal(const Arguments& arguments) {
  RoundsArgs args{.image_height = 256, .image_width = 256};
  args.target.backend = "openai-chat";
  App app(
      "Static load with pictures: every request carries one of its own, of random content and the given size, as a "
      "data "
      "URL before its text.",
      "bench modal");
  app.add_option("--height", args.image_height, "of the pictures, pixels");
  app.add_option("--width", args.image_width, "of the pictures, pixels");
  app.add_option("--image-format", args.image_format, "jpeg or png");
  add_rounds_flags(app, args);
  app.footer(
      "Example:\n"
      "  millrace bench modal --port 8000 --tokenizer /models/Qwen2-VL-2B --height 480 --width 640 \\\n"
      "      --parallel-num 1 4 --prompt-tokens 64 --output-tokens 64 --benchmark-csv modal.csv");
  if (const int code = parse(app, arguments); code >= 0) return code;
  const Result<int> code = run(args);
  return code.ok() ? *code : fail(code.status());
}

}  // namespace millrace::cli
